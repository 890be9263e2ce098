"""Every command line of the documentation works as typed: a real shell splits it, the command accepts it."""

import functools
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests.commands import REPOSITORY, SCRIPTS
from timix_pl.cli import evaluate, train
from timix_pl.config.compose import compose, recompose
from timix_pl.config.conf_dir import conf_dir
from timix_pl.core.types import EvaluationResult
from timix_pl.runs import dry_run as dry_run_module
from timix_pl.runs import evaluate as evaluate_run
from timix_pl.runs import evaluate_open_clip, heat_map
from timix_pl.runs.evaluate import Evaluated, EvaluatedModel

RUN_IN_FULL = REPOSITORY / "docs/plugins.md"  # in tests/e2e/test_plugins.py, beside the modules that its lines name
DOCUMENTS = [*REPOSITORY.glob("*.md"), *(page for page in REPOSITORY.glob("docs/**/*.md") if page != RUN_IN_FULL)]
COMMAND = re.compile(rf"^(?:\w+=\S* )*(?:{'|'.join(SCRIPTS)})\b.*")


def command_lines(document: Path) -> list[str]:
    """Lines of its bash blocks that start one of our commands, continued lines joined."""
    blocks = re.findall(r"^```bash\n(.*?)^```", document.read_text(encoding="utf-8"), re.M | re.S)
    return [" ".join(line.split()) for block in blocks for line in block.replace("\\\n", " ").splitlines() if COMMAND.match(line)]


DOCUMENTED = {line: document.name for document in DOCUMENTS for line in command_lines(document)}  # a line of two documents runs once
LINES = [pytest.param(line, id=f"{name}: {line}") for line, name in DOCUMENTED.items()]
EXPERIMENTS = {path.stem for path in (conf_dir() / "experiment").glob("*.yaml")}


@pytest.fixture
def typed(tmp_path, monkeypatch):
    """What a real shell makes of a line: the command and its words, after setting the line's variables."""
    recorder = "import json, os, sys; print(json.dumps([sys.argv[1:], {k: v for k, v in os.environ.items() if k.startswith('TIMIX_')}]))"
    for name in SCRIPTS:
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(recorder)} {name} "$@"\n')
        script.chmod(0o755)

    def split(line: str) -> tuple[str, list[str]]:
        path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(["bash", "-c", line], env=os.environ | {"PATH": path}, capture_output=True, text=True, check=True)
        (command, *words), variables = json.loads(done.stdout)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return command, words

    return split


def write_own_conf(folder: Path) -> None:
    """The example of a user's own experiment, as docs/configuration.md shows it."""
    (example,) = re.findall(r"^```yaml\n(.*?)^```", (REPOSITORY / "docs/configuration.md").read_text(encoding="utf-8"), re.M | re.S)
    path = folder / "mine/experiment/small.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(example)


def write_run(folder: Path) -> None:
    """As much of a run as the arguments of timix-evaluate are checked against: of the experiment that its name says, or the demo."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(config_of_run(folder.name if folder.name in EXPERIMENTS else "demo"))


@functools.cache
def config_of_run(experiment: str) -> str:
    return OmegaConf.to_yaml(OmegaConf.structured(compose([f"experiment={experiment}", "optim.ema=0.9999"])))


def recompose_only(checkpoint, overrides=()):
    run_dir = checkpoint.parent.parent if checkpoint.suffix else checkpoint
    recompose(run_dir / "config.yaml", overrides)
    return Evaluated(run_dir, checkpoint, 1, {}, EvaluationResult({}, {}), None)


def draw_nothing(checkpoint, image, text, out, overrides):
    return recompose_only(checkpoint, overrides)


def recompose_others(name, words):
    own = ("weights=", "out=")
    recompose(conf_dir() / "config.yaml", [w for w in words if not w.startswith(own)])
    return EvaluatedModel(name, "", None, {}, EvaluationResult({}, {}), None)


@pytest.mark.parametrize("line", LINES)
def test_a_documented_command_line_is_accepted(line, typed, tmp_path, monkeypatch, capsys):
    command, words = typed(line)
    monkeypatch.chdir(tmp_path)
    if command == "timix-train" and "--help" not in words:
        write_own_conf(tmp_path)
        for word in words:
            if word.startswith("init="):
                write_run(Path(word.partition("=")[2]))
        for name in ("describe_cost",):  # no matter of the command line, and most of the time
            monkeypatch.setattr(dry_run_module, name, lambda *args: "built")
        train.main([*words, "dry_run=true"])
        assert capsys.readouterr().out.endswith("built\n")
    elif command == "timix-evaluate" and any(word.startswith("checkpoint=open_clip:") for word in words):
        monkeypatch.setattr(evaluate_open_clip, "evaluate_open_clip", recompose_others)
        evaluate.main(words)
    elif command == "timix-evaluate" and "--help" not in words:
        (checkpoint,) = [Path(word.partition("=")[2]) for word in words if word.startswith("checkpoint=")]
        write_run(checkpoint.parent.parent if checkpoint.suffix else checkpoint)
        if checkpoint.suffix:
            checkpoint.touch()
        monkeypatch.setattr(evaluate_run, "evaluate", recompose_only)
        monkeypatch.setattr(heat_map, "draw_heat_map", draw_nothing)
        evaluate.main(words)
    else:
        # Their files are not here, so they may end with a message about these, but never with one about the arguments.
        assert status_of(command, words) in (0, 2)
        assert "usage:" not in capsys.readouterr().err


def status_of(command: str, words: list[str]) -> int:
    module, function = SCRIPTS[command].split(":")
    try:
        return getattr(importlib.import_module(module), function)(words) or 0
    except SystemExit as ended:
        return ended.code


def test_the_documentation_has_command_lines():
    assert len(LINES) >= 5
