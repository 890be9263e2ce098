"""All weights, the PTA head's among them, and the model built again from the folder alone."""

import json
import shutil

import pytest
import torch

import timix_pl
from tests.unit.export.models import FACTS, TEXTS, assert_same, images_for, outputs, trained
from timix_pl.core.errors import ModelError
from timix_pl.export.export import export


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("test-nano", {"pta_hidden_dim": 20, "init_logit_bias": -10.0, "max_logit_scale": 15.0}),
        ("test-clip", {"image_size_px": 48, "context_length": 9, "pta_block": 1}),
        ("test-timm-vit", {}),
    ],
)
def test_a_folder_gives_features_logits_and_patch_scores(architecture, options, tmp_path):
    model = trained(architecture, **options)
    export(model, FACTS, "safetensors", tmp_path / "out")
    loaded = timix_pl.load(tmp_path / "out")
    images, tokens = images_for(model), model.tokenizer(TEXTS)
    assert torch.equal(loaded.tokenizer(TEXTS), tokens)
    assert_same(outputs(loaded, images, tokens), outputs(model, images, tokens))
    assert_same([loaded.patch_scores(images, tokens)], [model.patch_scores(images, tokens)])
    assert (loaded.logit_scale, loaded.logit_bias) == pytest.approx((model.logit_scale, model.logit_bias))


def test_a_model_without_pta_head(tmp_path):
    export(trained("test-clip", with_pta=False), FACTS, "safetensors", tmp_path / "out")
    with pytest.raises(ModelError, match="no PTA head"):
        timix_pl.load(tmp_path / "out").patch_scores(images_for(trained("test-clip"), 1), "a dog")
    assert "patch_scores" not in (tmp_path / "out/README.md").read_text()


def test_a_hugging_face_text_tower_comes_along_and_the_folder_may_move(bert, tmp_path):
    model = trained("test-nano", text_model=bert)
    export(model, FACTS, "safetensors", tmp_path / "out")
    images, tokens = images_for(model), model.tokenizer(TEXTS)
    shutil.rmtree(bert)
    loaded = timix_pl.load((tmp_path / "out").rename(tmp_path / "elsewhere"))
    assert torch.equal(loaded.tokenizer(TEXTS), tokens)
    assert_same(outputs(loaded, images, tokens), outputs(model, images, tokens))


@pytest.mark.parametrize("damage", ["cut", "gone", "other"])
def test_a_damaged_export_is_named(damage, tmp_path):
    export(trained("test-clip"), FACTS, "safetensors", tmp_path / "out")
    weights, config = tmp_path / "out/model.safetensors", tmp_path / "out/config.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "gone":
        weights.unlink()
    else:
        content = json.loads(config.read_text())
        content["DualEncoder.create"]["pta_hidden_dim"] = 12
        config.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="not a whole export"):
        timix_pl.load(tmp_path / "out")
