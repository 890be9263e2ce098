"""Choices from outside of the package, as docs/plugins.md shows them: its own code and commands, on small data."""

import csv
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.commands import write_scripts
from tests.preloaded import popen
from tests.tiny import write_shards
from tests.tutorial import commands, write_tutorial

SMALL = """data.kind=shards data.global_batch_size=8 data.num_workers=0 trainer.max_steps=2 trainer.max_epochs=null trainer.num_threads=1
trainer.log_every_n_steps=1 trainer.progress_bar=false trainer.accelerator=cpu pictures.num_mixed=0
pictures.num_heat_maps=0""".split()  # noqa: SIM905
MIXED = ["mixing.group_size=4", "pta.first_frac=0"]


class Workplace:
    """A folder with the tutorial's code, and shards."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.scripts = write_scripts(folder / "scripts")
        write_tutorial(folder)
        write_shards(folder / "pairs", 24)
        write_shards(folder / "regions", 8, seed=1, num_regions=2)
        self.shards = [f"data.train_shards={folder}/pairs", f"data.region_shards={folder}/regions", f"data.val_shards={folder}/pairs"]

    def run(self, line: str, *more: str, status: int = 0, path: tuple[Path, ...] = ()) -> str:
        """Standard output of a command line, or the error where it ends with ``status`` 2."""
        command, *words = [*shlex.split(line), *more]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = popen([self.scripts / command, *words], cwd=self.folder, env=environment, **pipes, text=True)
        out, said = process.communicate()
        assert process.returncode == status, said
        return said if status else out

    def train(self, line: str, *more: str, **options) -> str:
        return self.run(line, *SMALL, *self.shards, *more, **options)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("plugins"))


def lines(*parts: str) -> str:
    """The one command of the page that has all of these parts."""
    (line,) = [line for line in commands() if all(part in line for part in parts)]
    return line


def rows(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_mixing_strategy_of_ones_own_trains_resumes_and_is_known_to_help(place: Workplace):
    line, run_dir = lines("mixing=my_halves", "share=0.25"), place.folder / "my_halves"
    place.train(line, *MIXED, f"run_dir={run_dir}", "evaluation.tasks=[]")
    assert [float(row["train/mixing/lam"]) for row in rows(run_dir)] == [0.25, 0.25]
    assert "share: 0.25" in (run_dir / "config.yaml").read_text()
    assert "other configuration" in place.train(
        line, *MIXED, f"run_dir={run_dir}", "evaluation.tasks=[]", "mixing.options.share=0.5", "trainer.max_steps=3", status=2
    ).replace("another configuration", "other configuration")
    place.train(line, *MIXED, f"run_dir={run_dir}", "evaluation.tasks=[]", "trainer.max_steps=3")
    assert [row["step"] for row in rows(run_dir)] == ["1", "2", "3"]
    assert "share" in place.run("timix-train --help 'plugins=[my_timix]'")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mixing.options.shar=0.5"], "mixing.options.shar=0.5: there is no such option; nearest: share"),
        (["mixing.options.share=much"], "mixing.options.share=much: it takes a number; the default is 0.5"),
        (["mixing.options.share=2"], "share=2): share must lie between 0 and 1"),
        (["mixing.kind=my_halfs"], "there is no mixing strategy 'my_halfs'; nearest: my_halves"),
        (["plugins=[my_timx]"], "plugins: there is no module my_timx"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_key(place: Workplace, words: list[str], message: str):
    assert message in place.train(
        lines("mixing=my_halves", "share=0.25").replace("mixing.options.share=0.25", ""), *MIXED, *words, status=2
    )


def test_loss_terms_are_added_up_and_left_out_of_exports(place: Workplace):
    run_dir = place.folder / "terms"
    place.train(lines("loss.terms="), *MIXED, f"run_dir={run_dir}", "evaluation.tasks=[]")
    for row in rows(run_dir):
        loss = {name.removeprefix("train/loss/"): float(value) for name, value in row.items() if name.startswith("train/loss/") and value}
        expected = loss["info_nce"] + float(row["train/mixing/gamma"]) * loss["mixed"] + loss["patch_text"]
        assert loss["total"] == pytest.approx(expected + 0.2 * loss["my_uniformity"] + loss["my_reconstruction"], rel=1e-4)
    place.run(f"timix-export checkpoint={run_dir} format=safetensors out={place.folder}/export")
    checkpoint = torch.load(run_dir / "checkpoints/step-00000002.ckpt", weights_only=True, map_location="cpu")
    assert "model.terms.my_reconstruction.colour.weight" in checkpoint["state_dict"]


def test_an_optimizer_of_ones_own_goes_on_where_it_stopped(place: Workplace):
    whole, halved = place.folder / "whole", place.folder / "halved"
    line = lines("optim=my_rmsprop")
    place.train(line, *MIXED, f"run_dir={whole}", "evaluation.tasks=[]", "trainer.max_steps=4", "checkpoint.every_n_steps=2")
    shutil.copytree(whole, halved)
    (halved / "checkpoints/step-00000004.ckpt").unlink()
    place.train(line, *MIXED, f"run_dir={halved}", "evaluation.tasks=[]", "trainer.max_steps=4", "checkpoint.every_n_steps=2")
    states = [
        torch.load(folder / "checkpoints/step-00000004.ckpt", weights_only=True, map_location="cpu")["optimizer_states"][0]["state"]
        for folder in (whole, halved)
    ]
    assert set(states[0][0]) == {"step", "square_avg"}
    assert all(states[0][n][name].equal(states[1][n][name]) for n in states[0] for name in states[0][n])
    place.train(line, *MIXED, "dry_run=true")


def test_an_evaluation_of_ones_own_runs_in_training_and_afterwards(place: Workplace):
    run_dir = place.folder / "runs/demo"
    place.train(lines("evaluation.tasks=[retrieval,my_gap]"), *MIXED, f"run_dir={run_dir}")
    in_training = json.loads((run_dir / "evaluation.json").read_text())
    assert in_training["descriptions"]["my_gap/distance"]["label"] == "distance of the centres"
    assert in_training["metrics"]["my_gap/distance"] > 0
    assert "my_gap/distance" in place.run(lines("timix-evaluate"))
    assert "distance of the centres" in (run_dir / "report.html").read_text()
    shutil.move(place.folder / "my_timix.py", place.folder / "away.py")
    try:
        for command in (f"timix-evaluate checkpoint={run_dir}", f"timix-export checkpoint={run_dir} format=hf out={place.folder}/hf"):
            assert "there is no module my_timix" in place.run(command, status=2)
    finally:
        shutil.move(place.folder / "away.py", place.folder / "my_timix.py")


def test_a_callback_of_ones_own_logs(place: Workplace):
    run_dir = place.folder / "callback"
    line = lines("trainer.callbacks=").replace("every_n_steps=20", "every_n_steps=2")
    place.train(line, *MIXED, f"run_dir={run_dir}", "evaluation.tasks=[]")
    assert [bool(row["train/weight_norm"]) for row in rows(run_dir)] == [False, True]


def test_a_layout_of_ones_own_makes_shards(place: Workplace):
    (place.folder / "photos").mkdir()
    for name in ("one", "two"):
        Image.new("RGB", (32, 24), "red").save(place.folder / f"photos/{name}.png")
    (place.folder / "photos/captions.txt").write_text("one\ta red square\ntwo\tanother\n")
    assert "2 samples" in place.run(lines("timix-data"))
    assert "--suffix SUFFIX" in place.run("timix-data --plugin my_timix captions-file --help")


def test_a_folder_of_ones_own_names_plugins(place: Workplace):
    assert "kind: my_halves" in place.train(lines("--config-dir"), "dry_run=true", "mixing.group_size=4")


def test_an_installed_package_needs_no_word_and_its_module_is_kept_with_the_run(place: Workplace, tmp_path: Path):
    """As pip leaves a package: a module, and a folder of metadata with its entry points."""
    site = tmp_path / "site"
    (site / "my_timix-1.0.dist-info").mkdir(parents=True)
    shutil.copy(place.folder / "my_timix.py", site / "my_package.py")
    (site / "my_timix-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: my-timix\nVersion: 1.0\n")
    (site / "my_timix-1.0.dist-info/entry_points.txt").write_text("[timix_pl.plugins]\nmine = my_package\n")
    place.train("timix-train experiment=demo mixing=my_halves", *MIXED, f"run_dir={tmp_path}/run", "evaluation.tasks=[]", path=(site,))
    assert "- my_package" in (tmp_path / "run/config.yaml").read_text()
    assert "there is no module my_package" in place.run(f"timix-evaluate checkpoint={tmp_path}/run", status=2)


def test_a_sweep_knows_the_options_of_plugins(place: Workplace):
    line = lines("mixing=my_halves", "share=0.25").replace("timix-train", "timix-train -m").replace("share=0.25", "share=0.25,0.75")
    place.train(line, *MIXED, f"run_dir={place.folder}/sweep", "evaluation.tasks=[]", "trainer.max_steps=1")
    lam = [float(rows(place.folder / f"sweep/{number}")[0]["train/mixing/lam"]) for number in range(2)]
    assert lam == [0.25, 0.75]
