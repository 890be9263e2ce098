"""timm image towers and Hugging Face text towers."""

import pytest
import timm
import torch
from transformers import AutoModel

from tests.text_model import write_text_model
from tests.tiny import random_images
from timix_pl.core.errors import ModelError
from timix_pl.models.dual_encoder import DualEncoder


@pytest.fixture(scope="module", params=["bert", "roberta"])
def text_model(request, tmp_path_factory):
    return write_text_model(tmp_path_factory.mktemp(request.param), request.param)


def test_a_hugging_face_text_tower_encodes_with_its_own_weights(text_model):
    encoder = DualEncoder.create("test-nano", text_model=text_model, pta_block=2).eval()
    reference = AutoModel.from_pretrained(text_model).eval()
    captions = ["a red ring", "a large striped square left of the circle", "blue"]
    tokens = encoder.tokenizer(captions)
    assert tokens.shape == (3, 12)  # the architecture's context length
    with torch.no_grad():
        features, pooled = encoder.text(tokens)
        for number, caption in enumerate(captions):  # each alone and without padding
            ids = encoder.tokenizer.tokenizer(caption, return_tensors="pt").input_ids
            mean = reference(input_ids=ids).last_hidden_state[0].mean(0)
            torch.testing.assert_close(pooled[number], mean, rtol=0, atol=1e-5)
        assert features.shape == (3, 16)
        torch.testing.assert_close(encoder.encode_text(tokens).norm(dim=1), torch.ones(3))
    loss = encoder(random_images(3, seed=0), tokens).text_features.square().sum()
    scores = encoder.patch_scores(random_images(3, seed=0), tokens)
    (loss + scores.sum()).backward()
    assert encoder.text.tower.transformer.embeddings.word_embeddings.weight.grad is not None


def test_its_weights_can_be_left_out(text_model):
    taken, fresh = (DualEncoder.create("test-nano", text_model=text_model, text_pretrained=p, pta_block=2) for p in (True, False))
    reference = AutoModel.from_pretrained(text_model).embeddings.word_embeddings.weight
    assert taken.text.tower.transformer.embeddings.word_embeddings.weight.equal(reference)
    assert not fresh.text.tower.transformer.embeddings.word_embeddings.weight.equal(reference)


def test_a_text_model_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"`text_model=.*nowhere"):
        DualEncoder.create("test-nano", text_model=str(tmp_path / "nowhere"), pta_block=2)


@pytest.mark.parametrize(("architecture", "block", "grid"), [("test-timm-vit", 3, (10, 10)), ("test-timm-convnext", 3, (10, 10))])
def test_a_timm_image_tower_gives_features_and_patch_features(architecture, block, grid, monkeypatch):
    asked = []
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *args, **options: asked.append(options.get("pretrained")) or create(*args, **options))
    encoder = DualEncoder.create(architecture, pta_block=block).eval()
    assert asked == [False]  # nothing is fetched unless weights are asked for
    assert encoder.patch_grid == grid and encoder.image_size_px == (160, 160)
    images = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pixels = encoder.normalise(images)
        features, patches, _ = encoder.image(pixels)
        torch.testing.assert_close(features, encoder.image.tower(pixels), rtol=0, atol=1e-5)
        intermediates = encoder.image.tower.trunk.forward_intermediates(pixels, intermediates_only=True, norm=False)
        torch.testing.assert_close(patches, intermediates[block - 1].flatten(2).mT, rtol=0, atol=1e-5)
        torch.testing.assert_close(encoder.image(pixels, stop=encoder.image.block).patch_features, patches, rtol=0, atol=1e-5)
        assert encoder.patch_scores(images, encoder.tokenizer(["a", "b"])).shape == (2, *grid)


def test_a_timm_tower_takes_another_image_size_and_refuses_one_that_does_not_fit():
    assert DualEncoder.create("test-timm-vit", image_size_px=96, pta_block=2).patch_grid == (6, 6)
    for image_size_px in (99, 102):  # 102 = 6 x 17
        with pytest.raises(ModelError, match=rf"`image_size_px=.*{image_size_px}"):
            DualEncoder.create("test-timm-vit", image_size_px=image_size_px, pta_block=2)


def test_a_tower_whose_inner_blocks_cannot_be_read_says_which_can():
    assert DualEncoder.create("RN50", device="meta", pta_block=5).patch_grid == (7, 7)
    with pytest.raises(ModelError) as caught:
        DualEncoder.create("RN50", device="meta", pta_block=2)
    assert str(caught.value) == (
        "`block=2`: patch features cannot be read from ModifiedResNet after this block; take its last one, `block=5`, or choose "
        "a vision transformer as `architecture`"
    )
