"""The commands as people meet them: help that is quick and clear, errors without stack traces, sweeps."""

import logging
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.commands import SCRIPTS, write_scripts
from timix_pl import __version__
from timix_pl.cli import evaluate, export, train
from timix_pl.cli.errors import clean_exit
from timix_pl.config.compose import compose
from timix_pl.core.choices import MIXERS
from timix_pl.core.errors import ConfigError, DataError
from timix_pl.core.metric import Metric, Unit
from timix_pl.core.types import EvaluationResult
from timix_pl.runs.evaluate import EvaluatedModel


@pytest.fixture(scope="module")
def bin_dir(tmp_path_factory):
    return write_scripts(tmp_path_factory.mktemp("bin"))


@pytest.fixture
def run(bin_dir, tmp_path):
    """Run a command in an empty folder."""

    def run(*words, **environment):
        return subprocess.run([bin_dir / words[0], *words[1:]], cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True)

    return run


def children_cpu_s():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("command", SCRIPTS)
def test_help_is_quick_and_says_how_to_begin(run, command):
    before_s = children_cpu_s()
    done = run(command, "--help")
    assert done.returncode == 0
    assert command in done.stdout
    assert "example" in done.stdout
    assert children_cpu_s() - before_s < 2  # CPU time: that of the wall depends on what else the machine does


def test_help_of_training_names_the_choices_and_the_options_most_used(capsys):
    with pytest.raises(SystemExit) as ended:
        train.main(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert re.search(rf"mixing= +{', '.join(sorted([*MIXERS.names(), 'none']))}\n", text)
    assert re.search(r"optim\.lr= +Peak learning rate\. \[0\.0005\]", text)


def test_all_problems_of_a_command_line_are_told_without_a_stack_trace(run, tmp_path):
    done = run("timix-train", "experiment=demo", "mixing.ratioo=1", "optim.lr=0")
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == "timix-train: the configuration has 2 problems"
    assert lines[1].startswith("  - mixing.ratioo=1: there is no key mixing.ratioo; nearest: mixing.ratio")
    assert lines[2].startswith("  - optim.lr=0: must be more than 0")
    assert len(lines) == 3
    assert list(tmp_path.iterdir()) == []


def test_help_of_evaluation_has_each_heading_once(capsys):
    with pytest.raises(SystemExit):
        evaluate.main(["--help"])
    headings = re.findall(r"^[a-z ]+:$", capsys.readouterr().out, re.M)
    assert len(headings) == len(set(headings)) >= 3


def test_a_flag_that_does_not_exist_is_explained(capsys):
    with pytest.raises(SystemExit) as ended:
        train.main(["--max_steps", "5"])
    assert ended.value.code == 2
    assert "there is no flag --max_steps: options are written KEY=VALUE" in capsys.readouterr().err


def test_spaces_around_the_equals_sign_get_one_message(capsys):
    with pytest.raises(SystemExit) as ended:
        train.main(["experiment=demo", "trainer.max_steps", "=", "60"])
    assert ended.value.code == 2
    assert "error: trainer.max_steps = 60: write trainer.max_steps=60, without spaces" in capsys.readouterr().err


def test_a_flag_that_means_an_option_brings_the_option(capsys):
    for flag, option in (
        ("--dry-run", "dry_run=..."),
        ("--batch-size", "data.global_batch_size=... or pta.batch_size=... or trainer.micro_batch_size=... or evaluation.batch_size=..."),
        ("--max-steps=5", "trainer.max_steps=..."),
        ("--optim.lr", "optim.lr=..."),
    ):
        with pytest.raises(SystemExit):
            train.main([flag])
        assert f"without dashes, such as {option}; timix-train --help" in capsys.readouterr().err


@pytest.mark.parametrize("command", SCRIPTS)
def test_each_command_tells_its_version(run, command):
    done = run(command, "--version")
    assert (done.returncode, done.stdout) == (0, f"{command} {__version__}\n")


def test_a_refusal_comes_before_anything_slow_is_imported():
    code = """import sys
from timix_pl.cli.train import main
try: main(["experiment=demo", "model.architecture=ViT-B32", "optim.lr=fast"])
except SystemExit as ended: print(ended.code, sorted({"torch", "open_clip", "lightning", "transformers"} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "2 []\n"
    assert "nearest: ViT-B-32" in done.stderr and "optim.lr takes a number" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluation=retreival"], "there is no evaluation 'retreival'; nearest: retrieval"),
        (["evaluation=[retrieval]", "data.val_shard=x"], "there is no key data.val_shard; nearest: data.val_shards"),
        (["evaluation=heat_map", "image=a.png", "text=a", "model.width=1"], "there is no key model.width"),
    ],
)
def test_wrong_options_of_an_evaluation_are_told_before_torch(words, said, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(compose(["experiment=demo"]))))
    code = f"""import sys
from timix_pl.cli.evaluate import main
try: main(["checkpoint=run", *{words!r}])
except SystemExit as ended: print(ended.code, sorted({{"torch", "open_clip", "lightning", "transformers"}} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "2 []\n"
    assert said in done.stderr


def test_a_sweep_is_refused_before_its_first_job(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        train.main(["-m", "experiment=demo", "mixing.ratio=0,2"])
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", "timix-train: error: mixing.ratio=2: must be from 0 to 1; the default is 1\n")
    assert list(tmp_path.iterdir()) == []


def test_an_error_shows_its_message_and_ends_with_2(capsys, monkeypatch):
    monkeypatch.delenv("TIMIX_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as ended, clean_exit("timix-train"):
        raise DataError("data.train_shards=x: there is no such folder")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "timix-train: error: data.train_shards=x: there is no such folder\n"


def test_the_stack_trace_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("TIMIX_TRACEBACK", "1")
    with pytest.raises(ConfigError), clean_exit("timix-train"):
        raise ConfigError(["x"])


def test_an_interruption_is_no_error_report(capsys):
    with pytest.raises(SystemExit) as ended, clean_exit("timix-train"):
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err == "\ntimix-train: interrupted\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "checkpoint= is missing"),
        (["checkpoint=runs/none"], "checkpoint=runs/none: there is no such run directory or checkpoint"),
        (["checkpoint=."], "config.yaml does not exist, so the run's configuration is unknown"),
    ],
)
def test_evaluation_needs_a_checkpoint(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        evaluate.main(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        ([], ["format= is missing; choose from hf, onnx, open_clip, safetensors", "checkpoint= is missing", "out= is missing"]),
        (
            ["checkpoint=.", "format=openclip", "out=x"],
            ["format=openclip: there is no export format 'openclip'; nearest: open_clip; choose from"],
        ),
        (["checkpoint=.", "format=[hf,tflite]", "out=x"], ["format=tflite: there is no export format 'tflite'; choose from hf, onnx"]),
        (
            ["checkpoint=runs/none", "format=hf", "out=x"],
            ["checkpoint=runs/none: there is no such run directory or checkpoint. The nearest"],
        ),
        (
            ["runs/demo", "ouput=x"],
            ["runs/demo: no such option; timix-export takes checkpoint=, format=, weights=, out= and plugins=", "ouput=x: no such option"],
        ),
    ],
)
def test_what_is_wrong_with_an_export_is_told_at_once_before_torch(words, messages, tmp_path):
    code = f"""import sys
from timix_pl.cli.export import main
try: main({words!r})
except SystemExit as ended: print(ended.code, sorted({{"torch", "open_clip", "lightning", "transformers"}} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "2 []\n"
    for message in messages:
        assert message in done.stderr


def test_several_formats_go_into_folders_of_their_own(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("timix_pl.runs.export.export_checkpoint", lambda checkpoint, outs, weights: asked.append(outs))
    export.main([f"checkpoint={tmp_path}", "format=[open_clip, hf]", "out=a"])
    export.main([f"checkpoint={tmp_path}", "out=a", "format=[onnx]"])
    assert asked == [{"open_clip": Path("a/open_clip"), "hf": Path("a/hf")}, {"onnx": Path("a")}]


def test_a_model_of_open_clip_goes_to_the_same_evaluations(tmp_path, monkeypatch, capsys):
    asked = []

    def evaluate_open_clip(name, words):
        asked.append((name, words))
        result = EvaluationResult({"retrieval/mean_recall": 0.5}, {}, descriptions={"retrieval/mean_recall": Metric(Unit.share)})
        return EvaluatedModel(f"open_clip:{name}", "w.pt", Path("out"), {"retrieval": {"num_samples": 7}}, result, None)

    monkeypatch.setattr("timix_pl.runs.evaluate_open_clip.evaluate_open_clip", evaluate_open_clip)
    monkeypatch.chdir(tmp_path)
    evaluate.main(["checkpoint=open_clip:ViT-B-32", "weights=w.pt", "evaluation=retrieval", "data.val_shards=x"])
    assert asked == [("ViT-B-32", ["weights=w.pt", "evaluation.tasks=[retrieval]", "data.val_shards=x"])]
    said = capsys.readouterr().out
    assert said.startswith("Model: open_clip:ViT-B-32, weights w.pt\nSamples: retrieval 7\n") and "50.0%" in said
    assert said.endswith("Results: out/evaluation.json\n") and (tmp_path / "out/evaluation.json").exists()


def test_all_wrong_paths_are_told_at_once_and_nothing_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    with pytest.raises(SystemExit) as ended:
        train.main(["data.train_shards=shard/a", "data.val_shards=shards/b", "data.region_shards=c", "trainer.max_steps=1"])
    assert ended.value.code == 2
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()[1:]] == [
        "  - data.train_shards=shard/a",
        "  - data.val_shards=shards/b",
        "  - data.region_shards=c",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]


def test_a_sweep_that_only_shows_has_a_folder_for_each_job_writes_nothing_and_leaves_the_logs_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    handlers = logging.getLogger().handlers[:]
    train.main(["-m", "experiment=demo", "mixing.ratio=0,0.5", "dry_run=true"])
    shown = capsys.readouterr().out
    assert re.findall(r"^run_dir: (.*)$", shown, re.M) == [f"runs/demo/{number}" for number in "01"]
    assert re.findall(r"^  ratio: (.*)$", shown, re.M) == ["0.0", "0.5"]
    assert list(tmp_path.iterdir()) == []
    assert logging.getLogger().handlers == handlers


def test_an_experiment_that_is_no_yaml_or_lacks_its_first_line_is_named(tmp_path, capsys):
    (tmp_path / "experiment").mkdir()
    for name, content, part in (("broken", "a: [1", "not valid YAML"), ("nopkg", "optim: {lr: 1}\n", "# @package _global_")):
        (tmp_path / "experiment" / f"{name}.yaml").write_text(content)
        with pytest.raises(SystemExit) as ended:
            train.main(["--config-dir", str(tmp_path), f"experiment={name}"])
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert f"experiment={name}: " in said and part in said
