"""Checkpoints: written whole, kept as told, the best by a metric, and going on from one to the last bit."""

import copy
import csv
import math
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from tests.optim import optim_settings
from tests.step_data import pair_data
from tests.tiny import GRID, tiny_model, write_shards
from tests.unit.training.running import AtEachStep, fit, ready_batches, same, trainer_for, training_module, weights_of
from timix_pl.core.errors import RunError
from timix_pl.core.types import EvaluationResult
from timix_pl.data.images.training_images import Augmentation
from timix_pl.data.sets.sample_stream import SampleStream
from timix_pl.mixing.strategies.timix import TiMix
from timix_pl.training.callbacks.checkpoints import CheckpointsCallback, newest_whole_checkpoint
from timix_pl.training.callbacks.evaluation import EvaluationCallback
from timix_pl.training.callbacks.mixing import MixingCallback
from timix_pl.training.checkpoint_io import AtomicCheckpointIO, tidy
from timix_pl.training.csv_logger import CsvLogger


def checkpoints(folder, **options):
    defaults = {"every_n_steps": None, "every_n_minutes": None, "keep_last": 9}
    return CheckpointsCallback(folder, **(defaults | options))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writing_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path, io = tmp_path / "a" / "step.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"x": torch.ones(3)}, path)

    def half(checkpoint, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(RunError, match=r"step.ckpt cannot be written .disk full"):
        io.save_checkpoint({"x": torch.zeros(3)}, path)
    assert io.load_checkpoint(path)["x"].tolist() == [1, 1, 1]
    assert names(path.parent) == ["step.ckpt"]


def test_a_file_takes_the_place_of_a_folder_of_the_same_name(tmp_path):
    """A run that was sharded goes on on one device: its best.ckpt was a folder."""
    (tmp_path / "best.ckpt").mkdir()
    (tmp_path / "best.ckpt" / "shard").write_text("old")
    AtomicCheckpointIO().save_checkpoint({"x": torch.ones(3)}, tmp_path / "best.ckpt")
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["x"].tolist() == [1, 1, 1]
    assert names(tmp_path) == ["best.ckpt"]


def test_after_a_kill_between_two_renames_the_old_checkpoint_comes_back(tmp_path, monkeypatch):
    (tmp_path / "best.ckpt").mkdir()
    (tmp_path / "best.ckpt" / "shard").write_text("old")

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(Path, "replace", killed)
        AtomicCheckpointIO().save_checkpoint({"x": torch.ones(3)}, tmp_path / "best.ckpt")
    assert not (tmp_path / "best.ckpt").exists()
    tidy(tmp_path)
    assert (tmp_path / "best.ckpt" / "shard").read_text() == "old" and names(tmp_path) == ["best.ckpt"]


def test_where_the_second_rename_fails_the_old_checkpoint_is_put_back(tmp_path, monkeypatch):
    (tmp_path / "best.ckpt").mkdir()

    def fails(*args):
        raise OSError("stale file handle")

    with monkeypatch.context() as context, pytest.raises(RunError, match=r"best.ckpt cannot be written .stale file handle"):
        context.setattr(Path, "replace", fails)
        AtomicCheckpointIO().save_checkpoint({"x": torch.ones(3)}, tmp_path / "best.ckpt")
    assert (tmp_path / "best.ckpt").is_dir() and names(tmp_path) == ["best.ckpt"]


def test_after_a_kill_behind_both_renames_the_new_checkpoint_stays(tmp_path):
    for name in ("best.ckpt", ".best.ckpt.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "shard").write_text(name)
    (tmp_path / ".step-00000002.ckpt.tmp").write_text("unfinished")
    tidy(tmp_path)
    assert (tmp_path / "best.ckpt" / "shard").read_text() == "best.ckpt" and names(tmp_path) == ["best.ckpt"]


def test_ranks_that_found_different_checkpoints_do_not_train(tmp_path, monkeypatch):
    monkeypatch.setattr("timix_pl.training.callbacks.checkpoints.gather_objects", lambda step: [step, 4])
    with pytest.raises(RunError, match=r"different checkpoints of .*, after steps 0, 4: the file system"):
        run(tiny_model(), 1, [checkpoints(tmp_path)])


def test_loading_runs_no_code(tmp_path):
    torch.save({"x": Exception("an object of a class")}, tmp_path / "evil.ckpt")
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "evil.ckpt")


@pytest.mark.parametrize("kept", [0, 1, 100, 0.2, 0.5, 0.99, 0.9999])
def test_the_newest_whole_checkpoint_is_found_behind_broken_ones(tmp_path, kept):
    for step in (2, 4, 10):
        torch.save({"state_dict": {"x": torch.randn(1000)}}, tmp_path / f"step-{step:08d}.ckpt")
    newest = tmp_path / "step-00000010.ckpt"
    data = newest.read_bytes()
    newest.write_bytes(data[: kept if isinstance(kept, int) else int(len(data) * kept)])
    assert newest_whole_checkpoint(tmp_path) == (tmp_path / "step-00000004.ckpt", [newest])
    newest.write_bytes(data)
    assert newest_whole_checkpoint(tmp_path) == (newest, [])


def test_where_there_is_none_none_is_found(tmp_path):
    assert newest_whole_checkpoint(tmp_path) == (None, [])
    assert newest_whole_checkpoint(tmp_path / "nowhere") == (None, [])
    (tmp_path / "step-00000001.ckpt").write_bytes(b"")
    assert newest_whole_checkpoint(tmp_path) == (None, [tmp_path / "step-00000001.ckpt"])


def run(model, num_steps, callbacks):
    fit(training_module(model), ready_batches(model, num_steps, regions=False), callbacks=callbacks)


def test_checkpoints_come_every_n_steps_and_at_the_end_and_the_newest_are_kept(tmp_path):
    run(tiny_model(), 7, [checkpoints(tmp_path, every_n_steps=2, keep_last=3)])
    assert names(tmp_path) == ["last.ckpt", *(f"step-{step:08d}.ckpt" for step in (4, 6, 7))]
    assert (tmp_path / "last.ckpt").resolve().name == "step-00000007.ckpt"


def test_checkpoints_come_every_n_minutes(tmp_path):
    run(tiny_model(), 3, [checkpoints(tmp_path, every_n_minutes=1e-9)])
    assert names(tmp_path) == ["last.ckpt", *(f"step-{step:08d}.ckpt" for step in (1, 2, 3))]


class Scores:
    """An evaluator with a score for each evaluation."""

    choice = "score"

    def __init__(self, scores):
        self.scores = list(scores)

    def run(self, model, device):
        return EvaluationResult({"score/value": self.scores.pop(0)}, {})


def evaluated(tmp_path, scores, **options):
    evaluation = EvaluationCallback([Scores(scores)], every_n_steps=1, folder=tmp_path)
    folder = tmp_path / "checkpoints"
    return [evaluation, checkpoints(folder, evaluation=evaluation, monitor="score/value", **options)], folder


@pytest.mark.parametrize(("mode", "best_step"), [("max", 2), ("min", 3)])
def test_the_best_checkpoint_holds_the_weights_of_the_best_step(tmp_path, mode, best_step):
    callbacks, folder = evaluated(tmp_path, [0.3, 0.8, 0.1, 0.8], mode=mode)
    model = tiny_model()
    history = []
    run(model, 4, [*callbacks, AtEachStep(after=lambda module: history.append(weights_of(module.model)))])
    best = torch.load(folder / "best.ckpt", weights_only=True)
    assert best["global_step"] == best_step
    assert same({name.removeprefix("model."): tensor for name, tensor in best["state_dict"].items()}, history[best_step - 1])


def test_no_score_is_a_best_one(tmp_path):
    callbacks, folder = evaluated(tmp_path, [math.nan, 0.1])
    run(tiny_model(), 2, callbacks)
    assert torch.load(folder / "best.ckpt", weights_only=True)["global_step"] == 2


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    return write_shards(folder / "train", 20), write_shards(folder / "regions", 10, seed=1, num_regions=2)


def datamodule(shards, model, max_steps):
    def stream(number, name):
        return SampleStream(str(shards[number]), key=name, seed=0, name=name, window_shards=2)

    return pair_data(
        stream(0, "train"),
        stream(1, "region"),
        model.tokenizer,
        global_batch_size=8,
        max_steps=max_steps,
        seed=0,
        num_workers=0,
        region_batch_size=3,
        region_every_n_steps=2,
        augmentation=Augmentation((0.5, 1.0), (0.75, 1.33), True),
    )


class KilledError(Exception):
    """The end of a process, as far as one process can act it."""


def pretrain(shards, folder, max_steps, *, killed_in_step=None, resume=False, planned_steps=None, more=()):
    """A run on shards with everything on; its weights and optimizer state at the end, and its rows."""
    model = tiny_model()
    optim = optim_settings(lr=1e-3, warmup_frac=0.3, schedule="cosine")
    module = training_module(model, optim=optim, planned_samples=(planned_steps or max_steps) * 8)

    def kill(module):
        if module.global_step + 1 == killed_in_step:
            raise KilledError

    mixing = MixingCallback(TiMix(GRID), ratio=0.5, warmup_frac=0.5, stop_frac=0.9, group_size=4, first_samples=8)
    trainer = trainer_for(max_steps, callbacks=[mixing, *more, AtEachStep(before=kill), checkpoints(folder, every_n_steps=2)])
    path = newest_whole_checkpoint(folder)[0] if resume else None
    try:
        trainer.fit(module, datamodule=datamodule(shards, model, max_steps), ckpt_path=path, weights_only=True)
    except KilledError:
        return None
    moments = copy.deepcopy(module.optimizers().optimizer.state_dict()["state"])
    return weights_of(model), moments, trainer.loggers[0].rows


def test_a_killed_run_goes_on_to_the_same_bits(shards, tmp_path):
    """Six steps at once; and killed in the sixth after a checkpoint at the fourth, then resumed."""
    weights, moments, rows = pretrain(shards, tmp_path / "whole", 6)
    assert pretrain(shards, tmp_path / "cut", 6, killed_in_step=6) is None
    assert names(tmp_path / "cut") == ["last.ckpt", "step-00000002.ckpt", "step-00000004.ckpt"]
    weights_again, moments_again, rows_again = pretrain(shards, tmp_path / "cut", 6, resume=True)
    assert same(weights, weights_again)
    for number in moments:
        assert same(moments[number], moments_again[number])
    assert rows_again == rows[4:]
    assert "train/loss/patch_text" in rows[4] and "train/loss/mixed" in rows[4]
    assert names(tmp_path / "whole") == names(tmp_path / "cut")


def test_extending_a_run_bends_no_schedule(shards, tmp_path):
    """A run planned for 4 steps and extended to 6 is a run of 6 steps with a plan for 4."""
    pretrain(shards, tmp_path / "extended", 4)
    weights, _, rows = pretrain(shards, tmp_path / "extended", 6, resume=True)
    reference, _, reference_rows = pretrain(shards, tmp_path / "reference", 6, planned_steps=4)
    assert same(weights, reference) and rows == reference_rows[4:]


def test_the_best_score_survives_a_resume(shards, tmp_path):
    """The best step is that of the checkpoint; a worse one after the resume must not take its place."""

    def run_scored(scores, *, kill, path=None):
        evaluation = EvaluationCallback([Scores(scores)], every_n_steps=2, folder=tmp_path)
        saving = checkpoints(tmp_path / "run", every_n_steps=2, evaluation=evaluation, monitor="score/value")

        def stop(module):
            if kill and module.global_step == 4:
                raise KilledError

        model = tiny_model()
        trainer = trainer_for(6, callbacks=[evaluation, AtEachStep(before=stop), saving])
        trainer.fit(training_module(model), datamodule=datamodule(shards, model, 6), ckpt_path=path, weights_only=True)

    with pytest.raises(KilledError):
        run_scored([0.1, 0.9], kill=True)
    run_scored([0.5], kill=False, path=newest_whole_checkpoint(tmp_path / "run")[0])
    assert torch.load(tmp_path / "run" / "best.ckpt", weights_only=True)["global_step"] == 4


@pytest.mark.parametrize(("other", "best"), [({}, 5.0), ({"monitor": "score/other"}, -math.inf), ({"mode": "min"}, -math.inf)])
def test_a_best_value_of_something_else_is_no_limit(tmp_path, other, best):
    """Another start of a run may watch another metric, or one that is better low."""
    before, after = (checkpoints(tmp_path, **({"monitor": "score/value"} | more)) for more in ({}, other))
    before.best = 5.0
    after.load_state_dict(before.state_dict())
    assert after.best == best
    after.load_state_dict({"best": 7.0})  # of an earlier version
    assert after.best == 7.0


def test_a_steps_row_is_on_disk_before_its_checkpoint(tmp_path, monkeypatch):
    """A kill between the two would lose the row, with its evaluation: a resumed run does not come back to it."""
    rows_then = []
    save = AtomicCheckpointIO.save_checkpoint

    def spy(self, checkpoint, path, storage_options=None):
        with (tmp_path / "metrics.csv").open(newline="") as file:
            rows_then.append((checkpoint["global_step"], [(row["step"], row["score/value"]) for row in csv.DictReader(file)]))
        save(self, checkpoint, path, storage_options)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", spy)
    evaluation = EvaluationCallback([Scores([0.1, 0.2])], every_n_steps=1, folder=tmp_path)
    saving = checkpoints(tmp_path / "run", every_n_steps=1)
    trainer = trainer_for(2, callbacks=[evaluation, saving], logger=CsvLogger(tmp_path / "metrics.csv"))
    model = tiny_model()
    trainer.fit(training_module(model), DataLoader(ready_batches(model, 2), batch_size=None))
    assert [step for step, _ in rows_then] == [1, 2]
    assert [(rows[-1][0], float(rows[-1][1])) for _, rows in rows_then] == [("1", pytest.approx(0.1)), ("2", pytest.approx(0.2))]
