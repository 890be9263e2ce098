"""VQA v2 (and v1): questions and their ten answers in two JSON files, on photos of COCO."""

from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

from data_pipelines.files import in_layout, read_json, require_folder
from data_pipelines.layout import Argument, layout
from data_pipelines.rows import Row
from timix_pl.core.errors import DataError


@layout("vqa2")
def read_vqa2(
    images: Annotated[Path, Argument("the folder of photos, such as train2014, or COCO's of 2017 with the same photos", "DIR")],
    questions: Annotated[Path, Argument("v2_OpenEnded_mscoco_*_questions.json", "FILE")],
    annotations: Annotated[Path, Argument("v2_mscoco_*_annotations.json, of the same split", "FILE")],
) -> list[Row]:
    """VQA v2: photos of COCO, questions and ten answers each as JSON.

    Rows come by image id; each has ``questions`` with the answers of ten people, whose type is that of the answer.

    Raises:
        DataError: a file or folder is missing or in another layout, or the two files do not belong together.
    """
    require_folder(images)
    with in_layout(questions, "VQA's questions"):
        asked = {entry["question_id"]: entry for entry in read_json(questions)["questions"]}
    of_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    with in_layout(annotations, "VQA's annotations"):
        content = read_json(annotations)
        for entry in content["annotations"]:
            if entry["question_id"] not in asked:
                raise DataError(f"{annotations}: question {entry['question_id']} is not in {questions}; give the two files of one split.")
            answers = [answer["answer"] for answer in entry["answers"]]
            question = asked[entry["question_id"]]["question"]
            of_image[entry["image_id"]].append({"question": question, "answers": answers, "type": entry["answer_type"]})
        subtype = content.get("data_subtype", "train2014")
        return [_row(images, subtype, image_id, of_image[image_id]) for image_id in sorted(of_image)]


def _row(images: Path, subtype: str, image_id: int, questions: list[dict[str, Any]]) -> Row:
    name = f"COCO_{subtype}_{image_id:012d}.jpg"
    if not (images / name).exists():
        name = f"{image_id:012d}.jpg"
    extra = {"source": "vqa2", "image_id": image_id, "file_name": name, "questions": questions}
    return Row(f"{image_id:012d}", images / name, extra=extra, group=f"coco-{image_id}")
