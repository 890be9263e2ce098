"""Visual7W's telling questions: one JSON, with choices in words, on photos of Visual Genome."""

from pathlib import Path
from typing import Annotated, Any, Literal

from data_pipelines.files import in_layout, read_json, require_folder
from data_pipelines.layout import Argument, PhotoFolder, layout
from data_pipelines.rows import Row
from timix_pl.core.errors import DataError


@layout("visual7w")
def read_visual7w(
    images: PhotoFolder,
    annotations: Annotated[Path, Argument("dataset_v7w_telling.json", "FILE")],
    split: Annotated[Literal["train", "val", "test"] | None, Argument("take only this split of the file (default: all)")] = None,
) -> list[Row]:
    """Visual7W: photos, telling questions with choices as JSON.

    Rows have the order of the file; each has ``questions``, with the right answer and the wrong choices.

    Raises:
        DataError: a file or folder is missing, the file is in another layout, or has no image of the split.
    """
    require_folder(images)
    with in_layout(annotations, "Visual7W"):
        listed = read_json(annotations)["images"]
        rows = [_row(images, image) for image in listed if split is None or image["split"] == split]
    if not rows:
        raise DataError(f"{annotations}: no image of split {split!r} among {len(listed)}.")
    return rows


def _row(images: Path, image: dict[str, Any]) -> Row:
    questions = [
        {
            "question": pair["question"],
            "answers": [pair["answer"]],
            "multiple_choices": list(pair.get("multiple_choices", ())),
            "type": pair["type"],
        }
        for pair in image["qa_pairs"]
    ]
    name = image["filename"]
    extra = {"source": "visual7w", "image_id": image["image_id"], "file_name": name, "questions": questions}
    return Row(Path(name).stem, images / name, extra=extra, group=f"vg-{image['image_id']}")
