"""What transformers loads gives the original's features, logits, pixels and tokens; what it cannot express is named."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPProcessor

from tests.tiny import random_pixels
from tests.unit.export.models import FACTS, TEXTS, assert_same, images_for, outputs, trained
from timix_pl.core.errors import ModelError
from timix_pl.export.export import export
from timix_pl.export.formats.hf import problems


@pytest.mark.parametrize("options", [{}, {"context_length": 20, "image_size_px": 48}, {"init_logit_bias": -10.0}])
def test_a_folder_is_loaded_by_clip_model(options, tmp_path):
    model = trained("test-clip", **options)
    export(model, FACTS, "hf", tmp_path / "out")
    loaded = CLIPModel.from_pretrained(tmp_path / "out").eval()
    processor = CLIPProcessor.from_pretrained(tmp_path / "out")
    images = images_for(model)
    words = processor(text=TEXTS, return_tensors="pt", padding="max_length", truncation=True)
    assert words["input_ids"].shape == (3, model.context_length)
    with torch.no_grad():
        found = loaded(pixel_values=model.encoder.normalise(images), **words)
    bias = loaded.config.logit_bias if "init_logit_bias" in options else 0
    expected = outputs(model, images, model.tokenizer(TEXTS))
    assert_same((found.image_embeds, found.text_embeds, found.logits_per_image + bias), expected)


def test_texts_get_the_numbers_that_open_clip_gives_them(tmp_path):
    model = trained("test-clip", context_length=30)
    export(model, FACTS, "hf", tmp_path / "out")
    tokenizer = CLIPProcessor.from_pretrained(tmp_path / "out").tokenizer
    captions = [
        "A photo of a dog!",
        "Hello,  World; it's the dogs' 3rd day... (well-known)",
        "don't I'll we've naïve café",
        'says "quoted" <3, costs $3.50 #1 @home & more',
        "a " * 50,
        "",
    ]
    for caption in captions:
        own = model.tokenizer(caption)[0].tolist()
        end = own.index(49407) + 1
        assert tokenizer(caption, padding="max_length", truncation=True)["input_ids"] == own[:end] + [49407] * (30 - end)
    vocabulary = json.loads((tmp_path / "out/vocab.json").read_text())
    merges = (tmp_path / "out/merges.txt").read_text().splitlines()
    assert len(vocabulary) == 49408 and len(merges) == 49152 - 256 - 2 + 1


@pytest.mark.parametrize("size", [(40, 60), (60, 40), (32, 32)])
def test_its_processor_gives_the_pixels_of_evaluation(size, tmp_path):
    model = trained("test-clip")
    export(model, FACTS, "hf", tmp_path / "out")
    image = Image.fromarray(random_pixels(*size, seed=0))
    expected = model.encoder.normalise(model.transform(image)[None])
    exact = CLIPImageProcessorPil.from_pretrained(tmp_path / "out")(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(exact, expected, atol=1e-5, rtol=0)
    usual = CLIPProcessor.from_pretrained(tmp_path / "out")(images=image, return_tensors="pt")["pixel_values"]
    assert np.abs((usual - expected).numpy()).max() < 1.5 / 255 / 0.26  # torchvision rounds in other places than PIL


@pytest.mark.parametrize(
    ("architecture", "parts"),
    [
        ("timix-tiny", ["pool_type is 'avg'"]),
        ("test-nano", ["images of 32 x 48 pixels"]),
        ("test-timm-vit", ["image tower is TimmModel"]),
    ],
)
def test_what_does_not_fit_is_named_with_the_formats_that_do(architecture, parts, tmp_path):
    with pytest.raises(ModelError) as refused:
        export(trained(architecture), FACTS, "hf", tmp_path / "out")
    for part in [*parts, "format=open_clip, safetensors or onnx"]:
        assert part in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("side", "changes", "part"),
    [
        ("vision_cfg", {"no_ln_pre": True}, "no norm before its blocks"),
        ("vision_cfg", {"ls_init_value": 0.1}, "the image tower scales its layers"),
        ("vision_cfg", {"attentional_pool": True, "attn_pooler_heads": 2}, "pools by attention"),
        ("vision_cfg", {"qk_norm": True}, "the image tower's blocks are CustomResidualAttentionBlock"),
        ("text_cfg", {"no_causal_mask": True}, "no causal mask"),
        ("text_cfg", {"pool_type": "last"}, "the text tower's pool_type is 'last'"),
        ("text_cfg", {"proj_bias": True}, "has a bias"),
        ("text_cfg", {"tokenizer_kwargs": {"clean": "canonicalize"}}, "tokenizer is not CLIP's own"),
    ],
)
def test_each_option_that_clip_model_lacks_is_found(side, changes, part, tmp_path):
    import open_clip

    config = open_clip.get_model_config("test-clip")
    config[side] |= changes
    (tmp_path / "test-changed.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "test-changed.json")
    (problem,) = problems(trained("test-changed", with_pta=False))
    assert part in problem


def test_a_text_tower_of_hugging_face_does_not_fit(bert):
    assert any("text tower is HFTextEncoder" in problem for problem in problems(trained("test-clip", text_model=bert)))
