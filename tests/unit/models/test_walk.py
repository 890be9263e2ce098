"""The image tower's walk against open_clip's and timm's own passes, bit for bit, and what towers without one do."""

import pytest
import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer

from tests.tiny import GRID, IMAGE_SIZE_PX, mix_step, random_captions, random_images, random_regions, tiny_model
from timix_pl.core.errors import ModelError
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.strategies.timix import TiMix
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.models.image_tower import ImageTower

OPEN_CLIP = {
    "class token": {},
    "average": {"pool_type": "avg"},
    "norm after pool": {"pool_type": "avg", "final_ln_after_pool": True},
    "no norm before": {"no_ln_pre": True},
    "attentional pool": {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2},
    "parallel pools": {"attentional_pool": "parallel", "output_dim": 32, "attn_pooler_queries": 4, "attn_pooler_heads": 2},
    "cascade of pools": {"attentional_pool": "cascade", "output_dim": 32, "attn_pooler_queries": 4, "attn_pooler_heads": 2},
    "query norm": {"qk_norm": True},
    "layer scale": {"ls_init_value": 0.1},
}
TIMM = {"test_vit": "token", "test_vit2": "avg", "test_vit3": "map", "test_vit4": ""}
"""Their pools; all but the third accept images of any size."""


def tower_of(name):
    torch.manual_seed(0)
    if name in TIMM:
        return TimmModel(name, 16, image_size=160, pool=TIMM[name], proj="linear").eval(), (160, 160)
    sizes = {"image_size": IMAGE_SIZE_PX, "patch_size": 8, "width": 32, "layers": 3, "heads": 2, "mlp_ratio": 2.0, "output_dim": 16}
    return VisionTransformer(**(sizes | OPEN_CLIP[name])).eval(), IMAGE_SIZE_PX


@torch.no_grad()
@pytest.mark.parametrize("name", [*OPEN_CLIP, *TIMM])
def test_it_gives_what_the_tower_itself_gives(name):
    tower, size = tower_of(name)
    if name in TIMM:
        for parameter in tower.parameters():  # position embeddings and class tokens start at almost zero
            parameter.add_(0.02 * torch.randn_like(parameter))
    image = ImageTower(tower, 2, size)
    assert image.walk is not None
    pixels = torch.randn(3, 3, *size)
    output = tower.forward_intermediates(pixels, indices=[1])
    whole = image(pixels, tokens_after=1)
    assert whole.image_features.equal(output["image_features"])
    assert whole.patch_features.equal(output["image_intermediates"][0].flatten(2).mT)
    assert whole.image_features.equal(tower(pixels))
    to_block = image(pixels, stop=2)
    assert to_block.patch_features.equal(whole.patch_features) and to_block.image_features is None
    for level in range(len(image.walk.blocks)):  # cut in two, anywhere
        tokens = image(pixels, stop=level, tokens_after=level).tokens
        rest = image(tokens, start=level)
        assert rest.image_features.equal(whole.image_features)
        assert rest.patch_features is None if level > 2 else rest.patch_features.equal(whole.patch_features)
    everything = torch.arange(image.patch_grid[0] * image.patch_grid[1]).expand(3, -1)
    assert image(pixels, keep=everything).image_features.equal(whole.image_features)


@torch.no_grad()
@pytest.mark.parametrize("name", ["class token", "average", "attentional pool", "test_vit", "test_vit2", "test_vit3"])
def test_patches_that_are_not_kept_are_not_seen(name):
    tower, size = tower_of(name)
    image = ImageTower(tower, 2, size)
    pixels = torch.randn(2, 3, *size)
    keep = torch.tensor([[0, 5, 6, 22], [1, 2, 3, 23]])
    other = pixels.clone()
    rows, columns = image.patch_grid
    patch = size[0] // rows, size[1] // columns
    for number in range(2):
        for position in set(range(rows * columns)) - set(keep[number].tolist()):
            y, x = divmod(position, columns)
            other[number, :, y * patch[0] : (y + 1) * patch[0], x * patch[1] : (x + 1) * patch[1]] = 7
    one, two = image(pixels, keep=keep), image(other, keep=keep)
    assert one.patch_features.shape[1] == 4
    assert one.image_features.equal(two.image_features) and one.patch_features.equal(two.patch_features)
    assert not image(pixels).image_features.equal(image(other).image_features)


def test_towers_of_another_make_run_as_ever_and_refuse_what_needs_a_walk():
    encoder = DualEncoder.create("test-timm-convnext", pta_block=3)
    assert encoder.image.walk is None and encoder.image.blocks() == []
    with pytest.raises(ModelError, match=r"`patch_dropout=0\.5`.*TimmModel.*`patch_dropout=0`"):
        DualEncoder.create("test-timm-convnext", pta_block=3, patch_dropout=0.5)
    with pytest.raises(ModelError, match=r"`mixing_level=1`.*TimmModel.*`mixing_level=None`"):
        DualEncoder.create("test-timm-convnext", pta_block=3, mixing_level=1)


def test_a_level_behind_the_last_block_and_one_behind_dropout_are_refused():
    assert tiny_model(mixing_level=2).mixing_level == 2
    with pytest.raises(ModelError, match=r"`mixing_level=3`: .*3 blocks.*`mixing_level=0` to `mixing_level=2`"):
        tiny_model(mixing_level=3)
    with pytest.raises(ModelError, match=r"`mixing_level=1`, `patch_dropout=0\.5`"):
        tiny_model(mixing_level=1, patch_dropout=0.5)
    assert tiny_model(mixing_level=0, patch_dropout=0.5).patch_dropout == 0.5


def test_blocks_are_those_of_both_towers():
    encoder = tiny_model()
    assert encoder.blocks() == [*encoder.image.tower.transformer.resblocks, *encoder.text.tower.transformer.resblocks]
    assert len(DualEncoder.create("test-timm-vit", pta_block=2).blocks()) == 6 + 2


def step_gradients(encoder, compute, **options):
    images, tokens = random_images(8, seed=1), encoder.tokenizer(random_captions(8, seed=1))
    rows, partners = mixed_rows(8, 4, 0.75, seed=2, step=3, first=0)
    regions = random_regions(encoder, 2, 5, seed=3)
    encoded = encoder(images, tokens, mix=mix_step(TiMix(GRID), compute, rows, partners, 2, 3, 0), regions=regions, **options)
    features = [encoded.image_features, encoded.text_features, encoded.mixed_image_features]
    draw = torch.Generator().manual_seed(0)
    loss = (
        sum((f @ torch.randn(16, generator=draw)).square().sum() for f in features if f is not None) + encoded.region_logits.square().mean()
    )
    encoder.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("compute", ["extra", "replace"])
@pytest.mark.parametrize("level", [None, 0, 1, 2])
def test_checkpointing_changes_no_gradient_and_runs_each_block_again(level, compute):
    encoder = tiny_model(mixing_level=level)
    runs = [0] * 5
    for number, block in enumerate(encoder.blocks()):

        def count(*_, number=number):
            runs[number] += 1

        block.register_forward_pre_hook(count)
    plain = step_gradients(encoder, compute)
    once, runs[:] = list(runs), [0] * 5
    encoder.checkpoint_gradients()
    again = step_gradients(encoder, compute)
    assert plain.keys() == again.keys() and all(again[name].equal(plain[name]) for name in plain)
    scoring = [0] * 5
    if compute == "replace":  # without gradient, so that nothing is run again
        scoring = [int((level or 0) < number <= 2) for number in (1, 2, 3)] + [0, 0]
    assert runs == [2 * n - s for n, s in zip(once, scoring, strict=True)]


@pytest.mark.parametrize(("architecture", "inner"), [("test-timm-vit", "blocks.1"), ("test-timm-convnext", "stages.1.blocks.0")])
def test_timm_towers_checkpoint_too(architecture, inner):
    encoder = DualEncoder.create(architecture, pta_block=2)
    pixels, runs, gradients = torch.randn(2, 3, 160, 160), [], []
    encoder.image.tower.trunk.get_submodule(inner).register_forward_pre_hook(lambda *_: runs.append(1))
    for expected in (1, 3):
        encoder.zero_grad()
        encoder.image(pixels).image_features.sum().backward()
        assert len(runs) == expected
        gradients.append([p.grad.clone() for p in encoder.image.parameters()])
        encoder.checkpoint_gradients()
    assert all(one.equal(two) for one, two in zip(*gradients, strict=True))


def test_a_tower_that_cannot_checkpoint_is_refused():
    image = ImageTower(TimmModel("cspresnet50", 16, image_size=64, pool="avg", proj="linear"), 2, (64, 64))
    with pytest.raises(ModelError, match=r"`checkpoint_gradients\(\)`: TimmModel.*leave it out"):
        image.checkpoint_gradients()


def test_pixels_are_normalised_in_fp32_whatever_the_weights_are():
    encoder, images = tiny_model(), random_images(2, seed=0)
    pixels = encoder.normalise(images)
    assert pixels.dtype == torch.float32
    assert encoder.to(torch.bfloat16).normalise(images).equal(pixels.to(torch.bfloat16))
    assert encoder.encode_image(images).dtype == torch.bfloat16
