"""``timix-evaluate`` as people start it: what it writes, on one process and under torchrun; heat maps."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands import write_scripts
from tests.e2e.test_run import arguments, without
from tests.preloaded import popen
from tests.tiny import random_pixels, write_shards
from timix_pl.cli.evaluate import main as evaluate
from timix_pl.cli.train import main as train


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder / "train", 24)
    write_shards(folder / "regions", 8, seed=1, num_regions=2)
    write_shards(folder / "val", 10, seed=2, num_regions=1)
    return folder


STEPS = ["trainer.max_steps=2", "checkpoint.every_n_steps=1", "evaluation=[retrieval]"]


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(arguments(shards, folder, *STEPS))
    return folder


SAYS_HOW_MANY = """\
from timix_pl.runs import evaluate
from timix_pl.core.distributed import world_size
run_tasks = evaluate.run_tasks
evaluate.run_tasks = lambda *given: print(f"one of {world_size()} ranks", file=sys.stderr) or run_tasks(*given)
"""


def found(run: Path) -> dict:
    return json.loads((run / "evaluate/evaluation.json").read_text())


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        evaluate(words)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_results_of_one_checkpoint_come_together_and_join_the_report(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate([f"checkpoint={run}", "evaluation=[retrieval]"])
    said = capsys.readouterr().out
    assert f"Checkpoint: {run}/checkpoints/step-00000002.ckpt, step 2\nSamples: retrieval 10\n" in said
    assert said.endswith(f"Results: {run}/evaluate/evaluation.json\nReport: {run}/report.html\n")
    first = found(run)
    assert first["step"] == 2 and first["checkpoint"] == "step-00000002.ckpt"
    assert first["evaluations"]["retrieval"]["data"]["val_shards"].endswith("val")
    assert len(json.loads((run / "evaluate/examples/retrieval.json").read_text())) == 16

    evaluate([f"checkpoint={run}", "evaluation=[grounding,mutual_information]", "evaluation.mi_pairs=5", "evaluation.batch_size=3"])
    both = found(run)
    assert both["metrics"].items() > first["metrics"].items() and both["metrics"]["mutual_information/ceiling"] == pytest.approx(np.log(5))
    assert list(both["evaluations"]) == ["retrieval", "grounding", "mutual_information"]
    assert both["descriptions"].keys() == both["metrics"].keys()
    assert both["evaluations"]["grounding"]["overrides"] == ["evaluation.mi_pairs=5", "evaluation.batch_size=3"]
    assert (run / "evaluate/examples/retrieval.json").exists()
    page = (run / "report.html").read_text()
    assert "Evaluated afterwards" in page and "Mutual information" in page and "From a caption to images" in page

    said = refusal([f"checkpoint={run}", "evaluation=[grounding,noise]", "evaluation.mi_pairs=5"], capsys)
    assert "noise: evaluation.noise_field=misalignment.kind: sample" in said  # grounding is kept all the same
    assert found(run)["evaluations"]["grounding"]["overrides"] == ["evaluation.mi_pairs=5"]

    evaluate([f"checkpoint={run}/checkpoints/step-00000001.ckpt", "evaluation=grounding"])
    assert list(found(run)["evaluations"]) == ["grounding"] and found(run)["step"] == 1
    assert not (run / "evaluate/examples/retrieval.json").exists()


def test_two_ranks_under_torchrun_give_the_figures_of_one(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"checkpoint={run}", "evaluation=[retrieval,mutual_information]", "evaluation.mi_pairs=5", "evaluation.batch_size=3"]
    evaluate(words)
    alone, said = found(run)["metrics"], capsys.readouterr().out
    (run / "evaluate/evaluation.json").unlink()
    script = write_scripts(tmp_path) / "timix-evaluate"
    script.write_text(script.read_text().replace("if __name__", f"{SAYS_HOW_MANY}if __name__"))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", str(script)]
    torchrun = popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = torchrun.communicate(timeout=300)
    assert torchrun.returncode == 0, err
    assert err.count("one of 2 ranks") == 2
    assert found(run)["metrics"] == alone
    assert out == said  # once, though two ranks ran


def test_ranks_are_torchruns_to_start(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "torchrun --nproc-per-node N $(which timix-evaluate)" in refusal([f"checkpoint={run}", "trainer.devices=2"], capsys)


def test_a_run_that_starts_anew_forgets_what_was_evaluated(shards: Path, tmp_path: Path) -> None:
    words = arguments(shards, tmp_path / "run", *STEPS)
    train(words)
    evaluate([f"checkpoint={tmp_path / 'run'}", "evaluation=[retrieval]"])
    for checkpoint in (tmp_path / "run/checkpoints").iterdir():
        checkpoint.unlink()
    train([*words, "evaluation.tasks=[]"])
    assert not {"evaluate", "examples", "evaluation.json"} & {path.name for path in (tmp_path / "run").iterdir()}


@pytest.mark.parametrize("size", [(40, 300), (33, 48), (700, 80)])
def test_a_heat_map_is_drawn_over_a_photo_of_any_size(
    size: tuple[int, int], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "photo.jpg"
    Image.fromarray(random_pixels(*size, 0)).save(photo)
    evaluate([f"checkpoint={run}", "evaluation=heat_map", f"image={photo}", "text=a red = ring"])
    said = capsys.readouterr().out
    path = run / "heat_maps/photo-a-red-ring.png"
    assert f"Heat map: {path}" in said and Image.open(path).size == (896, 448)  # 64 x 64 pixels, seven times, twice
    assert re.search(r"Best patch: row [1-8] of 8, column [1-8] of 8\nProbability: 0\.\d{3} to 0\.\d{3}\n", said)
    shares = {(40, 300): "13% of the width and 100%", (33, 48): "69% of the width and 100%", (700, 80): "100% of the width and 11%"}
    assert f"its centre, {shares[size]} of the height; the rest is cropped away" in said
    for _ in range(2):  # the second one takes the place of the first
        evaluate([f"checkpoint={run}", "evaluation=[heat_map]", f"image={photo}", "text=a", f"out={tmp_path / 'here.png'}"])
    assert (tmp_path / "here.png").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["image={tmp}/photo.png"], "text= is missing: give a phrase"),
        (["text=a"], "image= is missing: name a photo"),
        (["image={tmp}/gone.png", "text=a"], "gone.png: there is no such image"),
        (["image={tmp}/broken.png", "text=a"], "broken.png: the image cannot be decoded"),
        (["image={tmp}/photo.png", "text=a", "out={tmp}/no/where.png"], "no does not exist"),
        (["image={tmp}/photo.png", "text=a", "out={tmp}/photo.png"], "photo.png: exists, and was not written by timix-evaluate"),
        (["image={tmp}/photo.png", "text=a", "weights=x.pt"], "weights=x.pt: only checkpoint=open_clip:NAME takes it"),
        (["image={tmp}/photo.png", "evaluation=[retrieval]"], "only evaluation=heat_map takes it"),
        (["out=here", "evaluation=[retrieval]"], "out=here: only evaluation=heat_map or checkpoint=open_clip:NAME takes it"),
        (
            ["image={tmp}/photo.png", "text=a", "evaluation=[heat_map,retrieval]"],
            "a heat map cannot be combined with evaluations; write evaluation=heat_map image=",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_heat_map_lacks_is_told(words: list[str], says: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(random_pixels(40, 40, 0)).save(tmp_path / "photo.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert says in refusal([f"checkpoint={run}", "evaluation=heat_map", *(word.format(tmp=tmp_path) for word in words)], capsys)


def test_a_run_without_a_pta_head_draws_no_heat_maps(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train([*without(("mixing.", "pta."), arguments(shards, tmp_path / "run", *STEPS)), "mixing=none"])
    assert "no PTA head" in refusal([f"checkpoint={tmp_path / 'run'}", "evaluation=heat_map", "image=photo.png", "text=a"], capsys)
