"""The dual encoder against the plain open_clip model with the same weights."""

import math

import open_clip
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import Normalize

from tests.tiny import GRID, IMAGE_SIZE_PX, mix_step, random_captions, random_images, random_regions, tiny_model
from timix_pl.core.errors import ModelError
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.strategies.timix import TiMix
from timix_pl.models.dual_encoder import DualEncoder


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(3)
    return open_clip.create_model("test-nano").eval()


@pytest.fixture(scope="module")
def encoder(plain, tmp_path_factory):
    """Built from the plain model's weights, by path."""
    path = tmp_path_factory.mktemp("weights") / "plain.pt"
    torch.save(plain.state_dict(), path)
    return DualEncoder.create("test-nano", pretrained=str(path), pta_block=2).eval()


def plain_input(plain, images):
    statistics = plain.visual.preprocess_cfg
    return Normalize(statistics["mean"], statistics["std"])(images.float() / 255)


def patch_features(encoder, images):
    return encoder.image(encoder.normalise(images), stop=encoder.image.block).patch_features


@torch.no_grad()
def test_features_equal_open_clip_on_weights_loaded_by_path(plain, encoder):
    images, tokens = random_images(4, seed=1), encoder.tokenizer(random_captions(4, seed=1))
    torch.testing.assert_close(
        encoder.encode_image(images), plain.encode_image(plain_input(plain, images), normalize=True), rtol=0, atol=2e-6
    )
    torch.testing.assert_close(encoder.encode_text(tokens), plain.encode_text(tokens, normalize=True), rtol=0, atol=2e-6)
    encoded = encoder(images, tokens)
    torch.testing.assert_close(encoded.image_features, encoder.encode_image(images), rtol=0, atol=1e-6)
    torch.testing.assert_close(encoded.text_features, encoder.encode_text(tokens), rtol=0, atol=1e-6)


@torch.no_grad()
def test_patch_and_pooled_features_are_what_hooks_see_in_open_clip(plain, encoder):
    images, tokens = random_images(3, seed=2), encoder.tokenizer(random_captions(3, seed=2))
    seen = {}
    handles = [
        plain.visual.transformer.resblocks[1].register_forward_hook(lambda module, args, output: seen.update(block=output)),
        plain.ln_final.register_forward_hook(lambda module, args, output: seen.update(text=output)),
    ]
    plain.encode_image(plain_input(plain, images))
    plain.encode_text(tokens)
    for handle in handles:
        handle.remove()
    pixels = encoder.normalise(images)
    expected = seen["block"][:, 1:]  # without the class token
    assert expected.shape[1] == GRID[0] * GRID[1]
    torch.testing.assert_close(encoder.image(pixels)[1], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(patch_features(encoder, images), expected, rtol=0, atol=1e-5)
    end_of_text = seen["text"][torch.arange(3), tokens.argmax(1)]
    torch.testing.assert_close(encoder.text(tokens)[1], end_of_text, rtol=0, atol=1e-5)


@torch.no_grad()
def test_patch_scores_lie_on_the_grid_as_the_patches_do(encoder):
    """Row by row: changing the pixels of one patch changes what the patch features of block 2 are there more than anywhere else."""
    images, tokens = random_images(1, seed=3), encoder.tokenizer(["a red ring"])
    assert encoder.patch_grid == GRID and encoder.image_size_px == IMAGE_SIZE_PX
    assert encoder.patch_scores(images, tokens).shape == (1, *GRID)
    other = images.clone()
    other[:, :, 8:16, 32:40] = 255 - other[:, :, 8:16, 32:40]  # patch (1, 4)
    moved = (patch_features(encoder, other) - patch_features(encoder, images)).norm(dim=2)
    assert divmod(int(moved.argmax()), GRID[1]) == (1, 4)
    direct = encoder.pta(patch_features(encoder, images), encoder.text(tokens)[1])
    assert encoder.patch_scores(images, tokens)[0, 1, 4] == direct[0, 1 * GRID[1] + 4]


@torch.no_grad()
def test_each_image_is_scored_under_its_own_text(encoder):
    images, tokens = random_images(3, seed=4), encoder.tokenizer(random_captions(3, seed=4))
    together = encoder.patch_scores(images, tokens)
    for number in range(3):
        alone = encoder.patch_scores(images[number, None], tokens[number, None])[0]
        torch.testing.assert_close(together[number], alone, rtol=0, atol=1e-6)
    assert not torch.allclose(together, encoder.patch_scores(images, tokens.roll(1, 0)))


@torch.no_grad()
def test_region_images_stop_at_the_block():
    encoder = tiny_model(pta_block=2)
    calls = [0, 0, 0]

    def count(number):
        def hook(*_):
            calls[number] += 1

        return hook

    for number, block in enumerate(encoder.image.tower.transformer.resblocks):
        block.register_forward_hook(count(number))
    encoder(random_images(2, seed=0), encoder.tokenizer(["a", "b"]), regions=random_regions(encoder, 2, 3, seed=1))
    assert calls == [2, 2, 1]
    encoder.patch_scores(random_images(2, seed=0), encoder.tokenizer(["a", "b"]))
    assert calls == [3, 3, 1]


@torch.no_grad()
def test_region_logits_equal_patch_scores_of_each_phrase_on_its_image(encoder):
    regions = random_regions(encoder, 3, 7, seed=5)
    encoded = encoder(random_images(2, seed=0), encoder.tokenizer(["a", "b"]), regions=regions)
    for number, image in enumerate(regions.image_index.tolist()):
        alone = encoder.patch_scores(regions.images[image, None], regions.tokens[number, None])
        torch.testing.assert_close(encoded.region_logits[number], alone.flatten(), rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_logit_scale_starts_and_ends_where_it_is_told():
    encoder = tiny_model(init_logit_scale=20.0, max_logit_scale=50.0)
    inputs = random_images(2, seed=0), encoder.tokenizer(["a", "b"])
    assert float(encoder(*inputs).logit_scale) == pytest.approx(20)
    encoder.logit_scale.data.fill_(math.log(1000))
    assert float(encoder(*inputs).logit_scale) == pytest.approx(50)
    assert encoder(*inputs).logit_bias is None
    assert float(tiny_model(init_logit_bias=-10.0)(*inputs).logit_bias) == -10


class LargestOnTheCpu(TorchDispatchMode):
    """Notes how many elements the largest tensor has that is made on the CPU."""

    num_elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.device.type == "cpu":
            self.num_elements = max(self.num_elements, made.numel())
        return made


def test_meta_device_needs_no_memory_and_no_weights():
    with LargestOnTheCpu() as largest:
        encoder = DualEncoder.create("ViT-L-14", device="meta", pretrained="openai", pta_block=12)
    assert largest.num_elements < 1000
    assert all(tensor.is_meta for tensor in (*encoder.parameters(), *encoder.buffers()))
    assert encoder.patch_grid == (16, 16)
    assert sum(p.numel() for p in encoder.image.parameters()) > 300e6


def test_the_same_weights_go_through_a_state_dict():
    one, two = tiny_model(seed=1), tiny_model(seed=2)
    two.load_state_dict(one.state_dict())
    images = random_images(2, seed=0)
    assert one.encode_image(images).equal(two.encode_image(images))


@pytest.mark.parametrize(("name", "near"), [("ViT-B32", "ViT-B-32"), ("vit-b-16", "ViT-B-16"), ("timix-tinny", "timix-tiny")])
def test_an_unknown_architecture_is_told_its_nearest_names(name, near):
    with pytest.raises(ModelError, match=rf"`architecture={name}`.*{near}"):
        DualEncoder.create(name)


@pytest.mark.parametrize("block", [4, 99, 0, -1])
def test_a_block_that_does_not_exist_is_refused(block):
    with pytest.raises(ModelError, match=rf"`block={block}`: the image tower has 3 blocks, counted from 1; .*`block=3`"):
        tiny_model(pta_block=block)


@pytest.mark.parametrize("image_size_px", [60, 63, 12, 65])
def test_an_image_size_that_the_patches_do_not_divide_is_refused(image_size_px):
    """63 = 7 x 9, and a tower with patches of 8 pixels has 7 x 7 of them there."""
    with pytest.raises(ModelError, match=rf"`image_size_px=.*{image_size_px}"):
        DualEncoder.create("test-nano", image_size_px=image_size_px, pta_block=1)


def test_another_image_size_and_context_length_are_taken():
    encoder = DualEncoder.create("test-nano", image_size_px=64, context_length=20, pta_block=1)
    assert encoder.patch_grid == (8, 8)
    assert encoder.tokenizer(["a " * 40]).shape == (1, 20)
    assert encoder.encode_text(encoder.tokenizer(["a"])).shape == (1, 16)


def test_weights_that_are_not_there_or_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"`pretrained=.*nowhere\.pt"):
        DualEncoder.create("test-nano", pretrained=str(tmp_path / "nowhere.pt"), pta_block=1)
    other = tmp_path / "other.pt"
    torch.save(open_clip.create_model("timix-tiny").state_dict(), other)
    with pytest.raises(ModelError, match=r"`pretrained=.*other\.pt"):
        DualEncoder.create("test-nano", pretrained=str(other), pta_block=1)
    broken = tmp_path / "broken.pt"
    broken.write_bytes(other.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"`pretrained=.*broken\.pt"):
        DualEncoder.create("test-nano", pretrained=str(broken), pta_block=1)
    broken.write_bytes(b"no weights at all")
    with pytest.raises(ModelError, match=r"`pretrained=.*broken\.pt"):
        DualEncoder.create("test-nano", pretrained=str(broken), pta_block=1)


def test_without_the_head_nothing_is_scored():
    encoder = tiny_model(with_pta=False)
    images, tokens = random_images(4, seed=0), encoder.tokenizer(["a", "b", "c", "d"])
    assert encoder.pta is None and encoder(images, tokens).region_logits is None
    with pytest.raises(ModelError, match=r"`with_pta=True`"):
        encoder.patch_scores(images, tokens)
    with pytest.raises(ModelError, match=r"`with_pta=True`"):
        encoder(images, tokens, regions=random_regions(encoder, 2, 3, seed=0))
    rows, partners = mixed_rows(4, 4, 1.0, seed=0, step=0, first=0)
    for compute in ("extra", "replace"):
        with pytest.raises(ModelError, match=r"`with_pta=True`"):
            encoder(images, tokens, mix=mix_step(TiMix(GRID), compute, rows, partners, 0, 0, 0))
