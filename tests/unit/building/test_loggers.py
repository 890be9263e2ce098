"""What arrives at TensorBoard and wandb, of whole runs, resumed runs and sweeps; no server is asked."""

import json
import logging
import struct
import time
from types import SimpleNamespace

import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from tests.preloaded import popen
from tests.tiny import write_shards
from timix_pl.building import loggers
from timix_pl.building.loggers import open_loggers
from timix_pl.cli.train import main as train
from timix_pl.config.compose import compose
from timix_pl.core.errors import RunError
from timix_pl.launching import sweep

WORDS = """model=tiny trainer=cpu data.global_batch_size=8 mixing.group_size=4 pta.batch_size=4 data.num_workers=0
trainer.progress_bar=false trainer.log_every_n_steps=1 trainer.num_threads=1 evaluation.tasks=[retrieval] evaluation.batch_size=8
pictures.num_mixed=0 checkpoint.every_n_steps=1 checkpoint.keep_last=9 trainer.max_steps=3
data.train_shards=s/train data.region_shards=s/regions data.val_shards=s/val""".split()  # noqa: SIM905


@pytest.fixture(autouse=True)
def shards(tmp_path, monkeypatch):
    for name, count, regions in (("train", 16, 0), ("regions", 8, 2), ("val", 8, 1)):
        write_shards(tmp_path / "s" / name, count, seed=count, num_regions=regions)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_SILENT", "true")


def forget_after(run_dir, step):
    """As if the run had been killed after a later step than the last checkpoint's."""
    for path in run_dir.glob("checkpoints/step-*.ckpt"):
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()


def records(path):
    """Of wandb's file: LevelDB's log format behind 7 bytes; blocks of 32 KiB, pieces with checksum, length and kind."""
    data, place, joined = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := 2**15 - place % 2**15) < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        joined += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            record = wandb_internal_pb2.Record()
            record.ParseFromString(joined)
            joined = b""
            yield record


class Arrived:
    """What one offline run of wandb would upload."""

    def __init__(self, path):
        self.run_id, self.rows, self.summary, self.config, self.group, self.name, self.exit_code = "", [], {}, {}, "", "", None
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run_id, self.group, self.name = record.run.run_id, record.run.run_group, record.run.display_name
                self.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            elif kind == "config":
                self.config |= {item.key: json.loads(item.value_json) for item in record.config.update}
            elif kind == "history":
                self.rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item})
            elif kind == "summary":
                self.summary |= {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.summary.update}
            elif kind == "exit":
                self.exit_code = record.exit.exit_code


def arrived(run_dir, patience_s=10):
    """What is in the files; wandb's own process may still be writing when its ``finish`` returns."""
    until = time.monotonic() + patience_s
    while True:
        found = [Arrived(path) for path in sorted(run_dir.glob("wandb/offline-run-*/*.wandb"))]
        if all(run.exit_code is not None for run in found) or time.monotonic() > until:
            return found
        time.sleep(0.05)


def test_a_resumed_run_keeps_its_wandb_id_and_rows_that_come_again_are_taken(tmp_path):
    run_dir = tmp_path / "run"
    words = [*WORDS, "logger=wandb", "run_dir=run", "name=watched"]
    train(words)
    forget_after(run_dir, 1)
    train(words)
    first, second = arrived(run_dir)
    assert first.run_id == second.run_id == (run_dir / "wandb_id").read_text().strip()
    assert [row["trainer/global_step"] for row in first.rows] == [1, 2, 3]
    assert [row["trainer/global_step"] for row in second.rows] == [2, 3]
    for before, again in zip(first.rows[1:], second.rows, strict=True):
        assert again["train/loss/total"] == before["train/loss/total"]
    assert {"consumed", "retrieval/mean_recall", "train/samples_per_s"} <= set(second.rows[-1])
    assert (first.name, first.group, first.exit_code) == ("watched", "", 0)
    assert first.config["optim"]["lr"] == 5e-4 and first.config["mixing"]["kind"] == "timix"
    assert second.summary["status"] == "finished" and second.summary["steps"] == 3 and second.summary["wall_s"] > 0
    assert wandb.run is None


def test_a_run_that_begins_again_in_an_emptied_folder_is_a_new_one_for_wandb(tmp_path):
    words = [*WORDS, "logger=wandb", "run_dir=mine", "trainer.max_steps=1"]
    train(words)
    forget_after(tmp_path / "mine", 0)
    train(words)
    first, second = arrived(tmp_path / "mine")
    assert first.run_id != second.run_id
    assert first.name == json.loads((tmp_path / "mine/summary.json").read_text())["name"] == "mine"


def test_the_jobs_of_a_sweep_are_runs_of_their_own_in_one_group(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "subprocess", SimpleNamespace(Popen=popen))
    train(["-m", *WORDS, "logger=wandb", "run_dir=lr", "trainer.max_steps=1", "optim.lr=0.001,0.002"])
    runs = [one for number in "01" for one in arrived(tmp_path / "lr" / number)]
    assert [(run.name, run.group, run.config["optim"]["lr"]) for run in runs] == [
        ("optim.lr=0.001", "lr", 0.001),
        ("optim.lr=0.002", "lr", 0.002),
    ]
    assert len({run.run_id for run in runs}) == 2
    assert all("retrieval/mean_recall" in run.rows[-1] and run.summary["status"] == "finished" for run in runs)


def test_a_run_that_fails_is_marked_as_failed(tmp_path):
    with pytest.raises(SystemExit):
        train([*WORDS, "logger=wandb", "run_dir=run", "optim.lr=1e30", "optim.warmup_frac=0", "optim.clip_grad_norm=null"])
    (run,) = arrived(tmp_path / "run")
    assert run.exit_code == 1 and run.summary["status"] == "interrupted"


def config(*words):
    return compose([*WORDS, "logger=wandb", "run_dir=run", *words])


def test_without_an_answer_of_the_server_a_run_goes_on_offline(tmp_path, monkeypatch, caplog):
    (tmp_path / "run").mkdir()
    real, modes = wandb.init, []

    def no_server(**options):
        modes.append(options["mode"])
        if options["mode"] != "offline":
            raise wandb.errors.CommError("connection refused")
        return real(**options)

    monkeypatch.setattr(wandb, "init", no_server)
    with caplog.at_level(logging.WARNING, "timix_pl"), open_loggers(config("logger.offline=false"), 0) as opened:
        opened[1].log_metrics({"x": 1.0}, 1)
    assert modes == [None, "offline"]
    assert "connection refused" in caplog.text and "wandb sync run/wandb/offline-run-*" in caplog.text
    assert [row["x"] for row in arrived(tmp_path / "run")[0].rows] == [1.0]


def test_a_run_that_was_told_to_stop_did_not_fail(tmp_path):
    (tmp_path / "run").mkdir()
    for status in (75, 2):
        with pytest.raises(SystemExit), open_loggers(config(), 0):
            raise SystemExit(status)
    assert sorted(run.exit_code for run in arrived(tmp_path / "run")) == [0, 1]


def test_without_a_login_a_run_that_is_to_upload_is_refused(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(wandb, "init", lambda **_: (_ for _ in ()).throw(wandb.errors.UsageError("No API key configured.")))
    with pytest.raises(RunError, match=r"logger.offline=false: wandb refuses: No API key configured. Run 'wandb login', or"):
        open_loggers(config("logger.offline=false"), 0).__enter__()


@pytest.mark.parametrize("kind", ["csv", "tensorboard", "wandb"])
def test_other_ranks_open_nothing(kind, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(loggers, "rank_zero_only", SimpleNamespace(rank=1))
    with open_loggers(config(f"logger={kind}"), 0) as opened:
        assert [type(logger).__name__ for logger in opened] == ["CsvLogger"]
    assert [path.name for path in (tmp_path / "run").iterdir() if path.name != "metrics.csv"] == []


def test_tensorboard_has_each_step_once_the_configuration_and_a_row_for_the_run(tmp_path):
    words = [*WORDS, "logger=tensorboard", "run_dir=run"]
    train(words)
    forget_after(tmp_path / "run", 1)
    train(words)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss/total")] == [1, 2, 3]
    assert [event.step for event in events.Scalars("consumed")] == [1, 2, 3]
    assert "group_size: 4" in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    plugin = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"optim/lr" in plugin and b"mixing/kind" in plugin
    assert "retrieval/mean_recall" in events.Tags()["scalars"]
