"""What decays, how fast each part learns and what is a hidden matrix, on the towers themselves."""

import pytest
import torch

from tests.text_model import write_text_model
from tests.tiny import tiny_model
from tests.tiny_task import Lengths
from timix_pl.core.errors import ModelError
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.optim.groups import hidden_matrices, lr_scales, parameter_groups


def names_of(model, parameters):
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    return {name_of[id(parameter)] for parameter in parameters}


def scales_of(model, **changes):
    scales = lr_scales(model.parts(), **({"image": 1.0, "text": 1.0, "head": 1.0, "layer_decay": 1.0} | changes))
    return {name: scales.get(parameter, 1.0) for name, parameter in model.named_parameters()}


def test_matrices_decay_and_nothing_else():
    model = tiny_model(init_logit_bias=-10.0)
    decayed, plain = parameter_groups(model, 0.2)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.2, 0.0)
    assert decayed.keys() == plain.keys() == {"params", "weight_decay"}  # as checkpoints have them
    names = [names_of(model, group["params"]) for group in (decayed, plain)]
    assert names[0] | names[1] == {name for name, _ in model.named_parameters()} and not names[0] & names[1]
    assert {"image.tower.conv1.weight", "image.tower.proj", "text.projection", "text.tower.token_embedding.weight"} <= names[0]
    assert {"logit_scale", "logit_bias", "image.tower.class_embedding", "image.tower.positional_embedding"} <= names[1]
    assert "text.tower.positional_embedding" in names[1] and "image.tower.ln_post.weight" in names[1]
    assert all(not name.endswith("bias") for name in names[0])


def test_frozen_parameters_are_left_out():
    model = tiny_model()
    model.text.requires_grad_(False)
    found = {id(p) for group in parameter_groups(model, 0.1) for p in group["params"]}
    assert found == {id(p) for p in model.parameters() if p.requires_grad}


def test_each_part_learns_at_its_scale_and_the_temperature_at_the_whole_rate():
    model = tiny_model(init_logit_bias=-10.0)
    for name, scale in scales_of(model, image=0.1, text=0.5, head=2.0).items():
        assert scale == {"image": 0.1, "text": 0.5, "pta": 2.0, "logit_scale": 1.0, "logit_bias": 1.0}[name.partition(".")[0]], name
    of_task = scales_of(Lengths(towers="all"), head=2.0)
    assert of_task["head.long.weight"] == 2.0 and of_task["encoder.image.tower.conv1.weight"] == 1.0


def test_groups_hold_parameters_of_one_scale_the_fastest_first():
    model = tiny_model()
    scales = lr_scales(model.parts(), image=0.1, text=0.5, head=2.0, layer_decay=1.0)
    groups = parameter_groups(model, 0.2, lr_scales=scales)
    assert [(group["lr_scale"], group["weight_decay"]) for group in groups] == [
        (scale, decay) for scale in (2.0, 1.0, 0.5, 0.1) for decay in (0.2, 0.0) if (scale, decay) != (1.0, 0.2)
    ]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_with_layer_decay_each_block_learns_slower_than_the_next():
    """Three blocks in the image tower, two in the text tower."""
    scales = scales_of(tiny_model(), image=0.1, layer_decay=0.5)
    assert len(tiny_model().image.blocks()) == 3 and len(tiny_model().text.blocks()) == 2
    for number, share in enumerate((1 / 8, 1 / 4, 1 / 2)):
        block = {scale for name, scale in scales.items() if name.startswith(f"image.tower.transformer.resblocks.{number}.")}
        assert block == {0.1 * share}
    for name in ("conv1.weight", "class_embedding", "positional_embedding", "ln_pre.weight"):
        assert scales[f"image.tower.{name}"] == 0.1 / 16
    assert scales["image.tower.ln_post.weight"] == scales["image.tower.proj"] == 0.1
    assert scales["text.tower.transformer.resblocks.1.mlp.c_fc.weight"] == 1 / 2
    assert scales["text.tower.token_embedding.weight"] == scales["text.tower.positional_embedding"] == 1 / 8
    assert scales["text.projection"] == scales["pta.local.weight"] == scales["logit_scale"] == 1


class ReachedError(Exception):
    """The first block was called."""


def before_the_first_block(tower, run):
    """Names of the parameters outside of the blocks that the first block's input depends on."""
    blocks = tower.blocks()
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    outside = [(name, parameter) for name, parameter in tower.named_parameters() if id(parameter) not in inside]
    reached = []

    def stop(module, args):
        reached.append(args[0])
        raise ReachedError

    with pytest.raises(ReachedError), blocks[0].register_forward_pre_hook(stop):
        run()
    gradients = torch.autograd.grad(reached[0].sum(), [parameter for _, parameter in outside], allow_unused=True)
    return {name for (name, _), gradient in zip(outside, gradients, strict=True) if gradient is not None}


@pytest.mark.parametrize("make", ["open_clip", "timm", "bert", "roberta"])
def test_embeddings_are_what_the_first_block_reads(make, tmp_path):
    options = {"text_model": write_text_model(tmp_path, make), "context_length": 16} if make in ("bert", "roberta") else {}
    model = DualEncoder.create("test-timm-vit" if make == "timm" else "test-nano", pta_block=1, **options)
    scales = scales_of(model, layer_decay=0.5)
    runs = {
        "image": lambda: model.image(torch.zeros(1, 3, *model.image_size_px)),
        "text": lambda: model.text(model.tokenizer(["a red ring"])),
    }
    for part, run in runs.items():
        tower = model.parts()[part]
        slowest = {name for name, _ in tower.named_parameters() if scales[f"{part}.{name}"] == 0.5 ** (len(tower.blocks()) + 1)}
        assert slowest == before_the_first_block(tower, run), part
        assert slowest


def test_hidden_matrices_are_those_inside_the_blocks():
    model = tiny_model()
    hidden = hidden_matrices(model.parts(), "muon")
    in_a_block = {"attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"}
    wanted = {f"image.tower.transformer.resblocks.{number}.{name}" for number in range(3) for name in in_a_block}
    wanted |= {f"text.tower.transformer.resblocks.{number}.{name}" for number in range(2) for name in in_a_block}
    assert names_of(model, hidden) == wanted
    first, second, third = parameter_groups(model, 0.2, hidden=hidden)
    assert names_of(model, first["params"]) == wanted and first["hidden"] and "hidden" not in second
    assert [group["weight_decay"] for group in (first, second, third)] == [0.2, 0.2, 0.0]


def test_a_tower_without_blocks_is_refused_where_they_matter():
    model = DualEncoder.create("test-timm-convnext", pta_block=1, with_pta=False, device="meta")
    scales_of(model)
    with pytest.raises(ModelError, match=r"`layer_decay=0\.5`: the image tower, TimmModel, has no blocks that could be counted; set"):
        scales_of(model, layer_decay=0.5)
    with pytest.raises(ModelError, match=r"`optimizer=muon`: the image tower, TimmModel, has no blocks that could be counted; choose"):
        hidden_matrices(model.parts(), "muon")
    model.image.requires_grad_(False)
    assert hidden_matrices(model.parts(), "muon") and scales_of(model, layer_decay=0.5)
