"""What open_clip loads gives the original's features, logits, pixels and tokens."""

import json
import shutil

import open_clip
import pytest
import torch
from PIL import Image

from tests.tiny import random_pixels
from tests.unit.export.models import FACTS, TEXTS, assert_same, images_for, outputs, trained
from timix_pl.export.export import export


def of_open_clip(loaded, pixels, tokens):
    with torch.no_grad():
        logits, _ = loaded.get_logits(pixels, tokens)
        return loaded.encode_image(pixels, normalize=True), loaded.encode_text(tokens, normalize=True), logits


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("test-clip", {}),
        ("test-nano", {"init_logit_bias": -10.0}),
        ("timix-tiny", {"context_length": 9}),
        ("test-clip", {"image_size_px": 48}),
        ("test-timm-vit", {}),
        ("test-timm-convnext", {"with_pta": False}),
    ],
)
def test_a_folder_is_loaded_by_open_clip_itself(architecture, options, tmp_path):
    model = trained(architecture, **options)
    export(model, FACTS, "open_clip", tmp_path / "out")
    loaded, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path / 'out'}")
    images, tokens = images_for(model), model.tokenizer(TEXTS)
    assert torch.equal(tokenizer(TEXTS), tokens)
    assert_same(of_open_clip(loaded.eval(), model.encoder.normalise(images), tokens), outputs(model, images, tokens))


def test_the_architecture_can_be_registered_and_the_file_given(tmp_path):
    model = trained("test-clip")
    export(model, FACTS, "open_clip", tmp_path / "out")
    open_clip.add_model_config(tmp_path / "out/clip_from_timix.json")
    loaded, _, _ = open_clip.create_model_and_transforms("clip_from_timix", pretrained=str(tmp_path / "out/open_clip_model.safetensors"))
    images, tokens = images_for(model), open_clip.get_tokenizer("clip_from_timix")(TEXTS)
    assert_same(of_open_clip(loaded.eval(), model.encoder.normalise(images), tokens), outputs(model, images, tokens))


@pytest.mark.parametrize("size", [(40, 60), (60, 40)])
def test_its_transform_gives_the_pixels_of_evaluation(size, tmp_path):
    model = trained("test-clip")
    model.encoder.image.tower.preprocess_cfg.update(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    model.encoder.statistics = torch.tensor(((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))).view(2, 1, 3, 1, 1) * 255
    export(model, FACTS, "open_clip", tmp_path / "out")
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    image = Image.fromarray(random_pixels(*size, seed=0))
    torch.testing.assert_close(transform(image), model.encoder.normalise(model.transform(image)[None])[0], atol=1e-5, rtol=0)
    assert "image_mean=[0.5, 0.4, 0.3]" in (tmp_path / "out/README.md").read_text()


def test_a_hugging_face_text_tower_comes_along(bert, tmp_path):
    model = trained("test-nano", text_model=bert)
    export(model, FACTS, "open_clip", tmp_path / "out")
    images, tokens = images_for(model), model.tokenizer(TEXTS)
    shutil.rmtree(bert)
    loaded, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    assert torch.equal(open_clip.get_tokenizer(f"local-dir:{tmp_path / 'out'}")(TEXTS), tokens)
    assert_same(of_open_clip(loaded.eval(), model.encoder.normalise(images), tokens), outputs(model, images, tokens))
    card = (tmp_path / "out/README.md").read_text()
    assert "configuration from `out`" in card and "If you move this folder" in card and str(tmp_path) not in card


def test_a_logit_scale_above_its_bound_is_exported_as_the_model_uses_it(tmp_path):
    model = trained("test-clip", max_logit_scale=10.0)
    export(model, FACTS, "open_clip", tmp_path / "out")
    loaded = open_clip.create_model(f"local-dir:{tmp_path / 'out'}")
    assert loaded.logit_scale.exp().item() == pytest.approx(10.0)


def test_an_architecture_with_a_bias_that_the_model_lacks_loses_it(tmp_path):
    model = trained("test-clip")
    model.open_clip_config["init_logit_bias"] = -10
    export(model, FACTS, "open_clip", tmp_path / "out")
    assert "init_logit_bias" not in json.loads((tmp_path / "out/open_clip_config.json").read_text())["model_cfg"]
