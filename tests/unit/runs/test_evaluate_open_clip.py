"""Models of others, measured as runs are."""

import json
import logging

import open_clip
import pytest
import torch

from tests.tiny import tiny_model, write_shards
from timix_pl.core.errors import ConfigError, ModelError
from timix_pl.data.sets.evaluation_set import EvaluationSet
from timix_pl.evaluation.evaluators.retrieval import Retrieval
from timix_pl.runs.evaluate_open_clip import evaluate_open_clip


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards") / "val", 12, num_regions=1)


def test_a_weights_file_gives_the_figures_of_its_model(shards, tmp_path, caplog):
    torch.manual_seed(3)
    model = open_clip.create_model("test-nano")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    with caplog.at_level(logging.WARNING):
        evaluated = evaluate_open_clip(
            "test-nano", [f"weights={tmp_path}/weights.pt", f"data.val_shards={shards}", "data.num_workers=0", f"out={tmp_path}/a/b"]
        )
    same = tiny_model(pretrained=str(tmp_path / "weights.pt"))
    expected = Retrieval(EvaluationSet(str(shards), (32, 48)), batch_size=12, num_workers=0).run(same, torch.device("cpu"))
    assert evaluated.result.metrics == pytest.approx(expected.metrics)
    assert "grounding is left out, because the model has no PTA head" in caplog.text
    assert "zero_shot is left out, because data.zero_shot_shards is not set" in caplog.text
    assert evaluated.told() == f"Model: open_clip:test-nano, weights {tmp_path}/weights.pt\nSamples: retrieval 12"
    assert evaluated.write() == [f"Results: {tmp_path}/a/b/evaluation.json"]
    written = json.loads((tmp_path / "a/b/evaluation.json").read_text())
    assert written["metrics"] == evaluated.result.metrics and written["model"] == "open_clip:test-nano"
    assert written["evaluations"]["retrieval"]["num_samples"] == 12


def test_a_folder_of_open_clip_brings_its_own_weights(shards, tmp_path):
    torch.manual_seed(3)
    folder = tmp_path / "folder"
    folder.mkdir()
    torch.save(open_clip.create_model("test-nano").state_dict(), folder / "open_clip_pytorch_model.bin")
    content = {"model_cfg": open_clip.get_model_config("test-nano"), "preprocess_cfg": {"mean": [0.4, 0.5, 0.6]}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    words = [f"data.val_shards={shards}", "data.num_workers=0"]
    (tmp_path / "weights.pt").touch()
    same = tiny_model(pretrained=str(folder / "open_clip_pytorch_model.bin"))
    same.statistics[0] = torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1) * 255
    expected = Retrieval(EvaluationSet(str(shards), (32, 48)), batch_size=12, num_workers=0).run(same, torch.device("cpu"))
    evaluated = evaluate_open_clip(f"local-dir:{folder}", words)
    assert evaluated.result.metrics == pytest.approx(expected.metrics) and evaluated.write() == []
    assert evaluated.told() == f"Model: open_clip:local-dir:{folder}\nSamples: retrieval 12"
    with pytest.raises(ConfigError, match=r"the folder .* has its own weights; remove the option"):
        evaluate_open_clip(f"local-dir:{folder}", [f"weights={tmp_path}/weights.pt"])


@pytest.mark.parametrize(
    ("architecture", "words", "error", "message"),
    [
        ("ViT-B32", [], ConfigError, "checkpoint=open_clip:ViT-B32: open_clip has no such architecture; nearest: ViT-B-32"),
        ("ViT-B-32", [], ConfigError, "weights= is missing; name a weights file, or a tag that is downloaded: openai, "),
        ("ViT-B-32", ["weights=none.pt"], ConfigError, "weights=none.pt: there is no such file; name a weights file"),
        ("test-nano", ["weights=none.pt"], ConfigError, "weights=none.pt: there is no such file; name a weights file$"),
        ("local-dir:none", [], ConfigError, "checkpoint=open_clip:local-dir:none: there is no open_clip_config.json"),
        (
            "test-nano",
            ["weights=broken.pt", "data=scenes"],
            ModelError,
            r"weights=broken\.pt: cannot be loaded: the weights are no file of PyTorch",
        ),
        ("test-nano", ["weights=last.ckpt"], ConfigError, "a checkpoint of timix-train is evaluated with checkpoint=last.ckpt"),
        ("test-nano", ["weights=good.pt", "out=good.pt"], ConfigError, "out=good.pt: is a file; name a folder"),
        ("test-nano", ["weights=good.pt"], ConfigError, "no data to evaluate on: set data.val_shards"),
        ("test-nano", ["weights=good.pt", "model.architecture=ViT-B-32"], ConfigError, "model.architecture=ViT-B-32: has no effect on"),
        ("test-nano", ["weights=good.pt", "model=tiny"], ConfigError, "model=tiny: has no effect on"),
        ("test-nano", ["weights=good.pt", "pta.block=2"], ConfigError, r"pta.block=2: has no effect on .* data\.\*, evaluation\.\*"),
        ("test-nano", ["weights=good.pt", "mixing.kind=none"], ConfigError, "mixing.kind=none: has no effect on"),
        ("test-nano", ["weights=good.pt", "data.val_shard=x"], ConfigError, "there is no key data.val_shard; nearest: data.val_shards"),
    ],
)
def test_what_cannot_be_evaluated_is_told(architecture, words, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.pt").write_bytes(b"no weights")
    torch.save(open_clip.create_model("test-nano").state_dict(), tmp_path / "good.pt")
    monkeypatch.setattr("timix_pl.runs.evaluate_open_clip.prepare_data", lambda cfg: None)
    with pytest.raises(error, match=message):
        evaluate_open_clip(architecture, words)
