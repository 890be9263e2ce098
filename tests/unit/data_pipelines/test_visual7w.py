"""Visual7W's telling questions and VQA v2's, as published, in little."""

import json

import pytest

from data_pipelines import prepare_visual7w
from data_pipelines.layouts.visual7w import read_visual7w
from data_pipelines.layouts.vqa2 import read_vqa2
from data_pipelines.shards import make_shards
from timix_pl.core.errors import DataError
from timix_pl.data.sets.questions import Question, questions_of


def pair(image_id, number):
    wrong = ["A cat.", "A car.", "Nobody."]
    return {"qa_id": number, "image_id": image_id, "question": "Who?", "answer": "A dog.", "multiple_choices": wrong, "type": "who"}


@pytest.fixture
def visual7w(tmp_path, make_image):
    """Two images to train on, one to evaluate."""
    images = []
    for image_id, split in ((7, "train"), (8, "train"), (9, "val")):
        name = f"v7w_{image_id}.jpg"
        make_image(tmp_path / "visual7w" / "images" / name, seed=image_id)
        pairs = [pair(image_id, number) for number in range(image_id - 6)]
        images.append({"image_id": image_id, "filename": name, "split": split, "qa_pairs": pairs})
    (tmp_path / "visual7w" / "dataset_v7w_telling.json").write_text(json.dumps({"dataset": "v7w_telling", "images": images}))
    return tmp_path


def test_questions_with_their_choices(visual7w, read_shards, tmp_path):
    source = visual7w / "visual7w"
    account = make_shards(read_visual7w(source / "images", source / "dataset_v7w_telling.json", "train"), tmp_path / "out")
    samples = read_shards(tmp_path / "out")
    assert list(samples) == ["v7w_7", "v7w_8"] and account.lines() == ["2 samples written"]
    assert samples["v7w_8"]["image"] == (source / "images" / "v7w_8.jpg").read_bytes() and samples["v7w_8"]["image_id"] == 8
    assert questions_of(samples["v7w_8"]) == (Question("Who?", ("A dog.",), ("A cat.", "A car.", "Nobody."), "who"),) * 2


def test_a_split_that_the_file_lacks_and_another_layout_are_refused(visual7w, tmp_path):
    source = visual7w / "visual7w"
    with pytest.raises(DataError, match="no image of split 'test' among 3"):
        read_visual7w(source / "images", source / "dataset_v7w_telling.json", "test")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(DataError, match="not in the layout of Visual7W"):
        read_visual7w(source / "images", tmp_path / "other.json")


def test_the_sets_of_the_experiment(visual7w, tmp_path, read_shards):
    folders = prepare_visual7w(visual7w, tmp_path / "cache")
    assert {name: list(read_shards(folder)) for name, folder in folders.items()} == {"train": ["v7w_7", "v7w_8"], "val": ["v7w_9"]}
    assert prepare_visual7w(None, tmp_path / "cache") == folders
    with pytest.raises(DataError, match=r"experiment=visual7w needs real data.*visual7w/dataset_v7w_telling\.json"):
        prepare_visual7w(None, tmp_path / "other")


@pytest.fixture
def vqa2(tmp_path, make_image):
    """Two photos of COCO's 2014 and one under its name of 2017; three questions."""
    for name in ("COCO_val2014_000000000042.jpg", "COCO_val2014_000000000007.jpg", "000000000009.jpg"):
        make_image(tmp_path / "photos" / name, seed=len(name))
    asked = [{"question_id": 420 + n, "image_id": image, "question": f"Is it {n}?"} for n, image in enumerate((42, 7, 9, 42))]
    answers = [{"answer": "yes" if n < 7 else "no", "answer_id": n + 1, "answer_confidence": "yes"} for n in range(10)]
    given = [
        {
            "question_id": entry["question_id"],
            "image_id": entry["image_id"],
            "answers": answers,
            "answer_type": "yes/no",
            "question_type": "is it",
        }
        for entry in asked
    ]
    (tmp_path / "questions.json").write_text(json.dumps({"questions": asked, "data_subtype": "val2014"}))
    (tmp_path / "annotations.json").write_text(json.dumps({"annotations": given, "data_subtype": "val2014"}))
    return tmp_path


def test_questions_with_the_answers_of_ten_people(vqa2, read_shards):
    rows = read_vqa2(vqa2 / "photos", vqa2 / "questions.json", vqa2 / "annotations.json")
    account = make_shards(rows, vqa2 / "out")
    samples = read_shards(vqa2 / "out")
    assert list(samples) == ["000000000007", "000000000009", "000000000042"] and account.lines() == ["3 samples written"]
    first, second = questions_of(samples["000000000042"])
    assert first == Question("Is it 0?", ("yes",) * 7 + ("no",) * 3, (), "yes/no") and second.question == "Is it 3?"


def test_files_that_do_not_belong_together_are_refused(vqa2):
    (vqa2 / "questions.json").write_text(json.dumps({"questions": []}))
    with pytest.raises(DataError, match=r"question 420 is not in .*give the two files of one split"):
        read_vqa2(vqa2 / "photos", vqa2 / "questions.json", vqa2 / "annotations.json")


@pytest.mark.real_data
def test_the_real_collection(real_data, tmp_path, read_shards):
    sets = {name: read_shards(folder) for name, folder in prepare_visual7w(real_data, tmp_path).items()}
    assert (len(sets["train"]), len(sets["val"])) == (1700, 300) and not sets["train"].keys() & sets["val"].keys()
    questions = [question for samples in sets.values() for sample in samples.values() for question in questions_of(sample)]
    assert len(questions) == 4792 and all(len(question.choices) == 4 for question in questions)
