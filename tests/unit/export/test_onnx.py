"""What onnxruntime makes of the graphs, for any batch, and the tokens that go with them."""

import importlib.util

import onnxruntime
import pytest
import torch
from tokenizers import Tokenizer

from tests.unit.export.cards import assert_of_the_model, shown_by_the_cards
from tests.unit.export.models import FACTS, TEXTS, assert_same, images_for, outputs, trained
from timix_pl.core.errors import ConfigError
from timix_pl.export.export import export


def run(path, **inputs):
    return torch.from_numpy(onnxruntime.InferenceSession(path).run(None, {name: value.numpy() for name, value in inputs.items()})[0])


def assert_graphs_and_tokens_are_the_models(folder, model):
    for number in (1, 3):
        images, tokens = images_for(model, number), model.tokenizer(TEXTS[:number])
        image_features, text_features = run(folder / "image.onnx", images=images), run(folder / "text.onnx", tokens=tokens)
        logits = model.logit_scale * image_features @ text_features.T + (model.logit_bias or 0)
        assert_same((image_features, text_features, logits), outputs(model, images, tokens))
        assert_same([run(folder / "patch_scores.onnx", images=images, tokens=tokens)], [model.patch_scores(images, tokens)])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert [encoding.ids for encoding in tokenizer.encode_batch(TEXTS)] == model.tokenizer(TEXTS).tolist()


def test_graphs_give_features_logits_and_patch_scores_of_any_batch_and_the_code_of_the_card_runs_without_timix(tmp_path):
    model = trained("test-clip", context_length=9, init_logit_bias=-10.0)
    export(model, FACTS, "onnx", tmp_path / "onnx")
    assert_graphs_and_tokens_are_the_models(tmp_path / "onnx", model)
    assert_of_the_model(shown_by_the_cards(tmp_path, ["onnx"])["onnx"], model, tmp_path)


def test_an_image_tower_of_timm(tmp_path):
    model = trained("test-timm-vit")
    export(model, FACTS, "onnx", tmp_path / "out")
    assert_graphs_and_tokens_are_the_models(tmp_path / "out", model)


def test_images_that_are_not_square_and_a_hugging_face_text_tower_with_its_tokenizer(bert, tmp_path):
    model = trained("test-nano", text_model=bert)
    export(model, FACTS, "onnx", tmp_path / "out")
    assert_graphs_and_tokens_are_the_models(tmp_path / "out", model)


def test_a_missing_package_is_told_with_the_line_that_brings_it(monkeypatch, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "onnxscript" else found(name, *rest))
    with pytest.raises(ConfigError, match=r"format=onnx: needs onnxscript; pip install onnx onnxscript onnxruntime, or 'timix-pl\[onnx\]'"):
        export(trained("test-clip"), FACTS, "onnx", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
