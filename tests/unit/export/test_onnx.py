"""What onnxruntime makes of the graphs, for any batch, and the tokens that go with them."""

import importlib.util

import onnxruntime
import pytest
import torch
from tokenizers import Tokenizer

from tests.unit.export.models import FACTS, TEXTS, assert_same, images_for, outputs, trained
from timix_pl.core.errors import ConfigError
from timix_pl.export.export import export


def run(path, **inputs):
    return torch.from_numpy(onnxruntime.InferenceSession(path).run(None, {name: value.numpy() for name, value in inputs.items()})[0])


@pytest.mark.parametrize(
    ("architecture", "options"), [("test-nano", {"init_logit_bias": -10.0}), ("test-clip", {"context_length": 9}), ("test-timm-vit", {})]
)
def test_graphs_give_features_logits_and_patch_scores_of_any_batch_and_tokens_are_open_clips(architecture, options, tmp_path):
    model = trained(architecture, **options)
    export(model, FACTS, "onnx", tmp_path / "out")
    for number in (1, 3):
        images, tokens = images_for(model, number), model.tokenizer(TEXTS[:number])
        image_features, text_features = run(tmp_path / "out/image.onnx", images=images), run(tmp_path / "out/text.onnx", tokens=tokens)
        logits = model.logit_scale * image_features @ text_features.T + (model.logit_bias or 0)
        assert_same((image_features, text_features, logits), outputs(model, images, tokens))
        assert_same([run(tmp_path / "out/patch_scores.onnx", images=images, tokens=tokens)], [model.patch_scores(images, tokens)])
    tokenizer = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    assert [encoding.ids for encoding in tokenizer.encode_batch(TEXTS)] == model.tokenizer(TEXTS).tolist()


def test_a_hugging_face_text_tower_with_its_tokenizer(bert, tmp_path):
    model = trained("test-nano", text_model=bert, with_pta=False)
    export(model, FACTS, "onnx", tmp_path / "out")
    tokens = torch.tensor([encoding.ids for encoding in Tokenizer.from_file(str(tmp_path / "out/tokenizer.json")).encode_batch(TEXTS)])
    assert torch.equal(tokens, model.tokenizer(TEXTS))
    assert_same([run(tmp_path / "out/text.onnx", tokens=tokens)], [model.encode_text(TEXTS)])
    assert not (tmp_path / "out/patch_scores.onnx").exists()


def test_a_missing_package_is_told_with_the_line_that_brings_it(monkeypatch, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "onnxscript" else found(name, *rest))
    with pytest.raises(ConfigError, match=r"format=onnx: needs onnxscript; pip install onnx onnxscript onnxruntime, or 'timix-pl\[onnx\]'"):
        export(trained("test-clip"), FACTS, "onnx", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
