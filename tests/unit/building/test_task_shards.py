"""What a task learns from is looked for before anything is written, and read by one of the ranks that start together."""

import json
import multiprocessing
import time
from pathlib import Path

import pytest

from tests.questions import write_question_shards
from tests.tiny import encoded_image, random_pixels, write_shards
from timix_pl.building.assemble import assemble
from timix_pl.building.data import build_stream
from timix_pl.building.evaluators import build_evaluators
from timix_pl.building.tasks import captioning, vqa
from timix_pl.config.schema import DataConfig, EvaluationConfig, RootConfig, VqaConfig, VqaKind
from timix_pl.core.errors import DataError
from timix_pl.data.shards.writer import ShardWriter
from timix_pl.models.fusion import VqaModel
from timix_pl.runs.run_dir import claimed


def config(shards: Path, kind: VqaKind = VqaKind.multiple_choice, **options) -> RootConfig:
    return RootConfig(
        task="vqa", run_dir=str(shards.parent / "run"), data=DataConfig(train_shards=str(shards)), vqa=VqaConfig(kind=kind), **options
    )


def write_asked(folder: Path, asked: list[list[dict]]) -> Path:
    """A sample for each list of questions; its image is not decoded."""
    with ShardWriter(folder) as writer:
        for number, questions in enumerate(asked):
            writer.write(f"s{number}", b"not decoded here", "png", extra={"questions": questions} if questions else {})
    return folder


WITHOUT_CHOICES = {"question": "who?", "answers": ["me"]}


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        ([], VqaKind.multiple_choice, "the sample has no questions"),
        ([], VqaKind.open, "the sample has no questions"),
        ([WITHOUT_CHOICES], VqaKind.multiple_choice, "none of the sample's questions has multiple_choices; set vqa.kind=open"),
    ],
)
def test_shards_without_questions_are_told_before_anything_is_written(tmp_path, asked, kind, said):
    cfg = config(write_asked(tmp_path / "shards", [asked] * 80), kind)
    with pytest.raises(DataError, match=rf"data\.train_shards: none of the 64 samples looked at can be used.*{said}"):
        assemble(cfg)
    assert not Path(cfg.run_dir).exists()


def test_shards_without_captions_are_told_before_anything_is_written(tmp_path):
    with ShardWriter(tmp_path / "shards") as writer:
        for number in range(5):
            writer.write(f"s{number}", encoded_image(random_pixels(40, 60, number), "PNG"), "png")
    cfg = RootConfig(task="captioning", data=DataConfig(train_shards=str(tmp_path / "shards")))
    with pytest.raises(DataError, match="none of the 5 samples looked at can be used; the last reason: the sample has no caption"):
        captioning.Captioning(cfg).learn_facts(build_stream(cfg, "train"))


def test_a_few_questions_are_enough(tmp_path):
    cfg = config(write_asked(tmp_path / "shards", [[], [], [], [WITHOUT_CHOICES | {"multiple_choices": ["you"]}]]))
    assert vqa.Vqa(cfg).learn_facts(build_stream(cfg, "train")) == {"kinds": ["multiple_choice"], "answers": []}


def test_an_evaluation_set_without_questions_is_refused_at_the_start(tmp_path):
    data = DataConfig(val_shards=str(write_shards(tmp_path / "val", 3)))
    cfg = RootConfig(task="vqa", data=data, evaluation=EvaluationConfig(tasks=["vqa"]))
    model = object.__new__(VqaModel)
    model.__dict__ |= {"image_size_px": (32, 48), "answers": []}
    with pytest.raises(DataError, match=r"data\.val_shards: none of the 3 images has questions"):
        build_evaluators(cfg, model)


def test_of_ranks_that_start_together_one_reads_the_answers(tmp_path, monkeypatch):
    cfg = config(write_question_shards(tmp_path / "shards", 8), VqaKind.open)

    def read(*_):
        with (tmp_path / "read").open("a") as file:
            file.write("once\n")
        time.sleep(0.5)
        return ["red"]

    monkeypatch.setattr(vqa, "frequent_answers", read)
    ranks = [
        multiprocessing.get_context("fork").Process(target=vqa.Vqa(cfg).learn_facts, args=(build_stream(cfg, "train"),)) for _ in range(3)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0, 0]
    assert (tmp_path / "read").read_text() == "once\n"
    assert json.loads((tmp_path / "run" / "answers.json").read_text())["answers"] == ["red"]


def test_a_start_that_is_refused_leaves_no_answers(tmp_path):
    cfg = config(write_question_shards(tmp_path / "shards", 8), VqaKind.open)
    with pytest.raises(KeyboardInterrupt), claimed(cfg):
        vqa.Vqa(cfg).learn_facts(build_stream(cfg, "train"))
        raise KeyboardInterrupt
    assert not (tmp_path / "run").exists()
