"""Parameter groups: weight decay, learning rates, and the matrices of hidden layers."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from timix_pl.core.errors import ModelError

TOWERS = ("image", "text")
"""The parts of a model with transformer blocks."""

_NO_DECAY = ("positional_embedding", "class_embedding", "pos_embed", "cls_token")

_BEFORE_THE_BLOCKS = re.compile(r"^(?!.*attn_pool).*(emb|conv1|ln_pre|norm_pre|cls_token|reg_token|shared|wte|wpe)")
"""Matches names of parameters that come before the blocks, in the towers of open_clip, timm and transformers."""


def parameter_groups(
    model: nn.Module, weight_decay: float, *, lr_scales: Mapping[Tensor, float] | None = None, hidden: Collection[Tensor] = ()
) -> list[dict[str, Any]]:
    """Trainable parameters in groups. Matrices decay; gains, biases, class token, position embeddings and logit scale do not.

    Args:
        lr_scales: factors on the learning rate, from :func:`lr_scales`; 1 for parameters without one.
        hidden: parameters that get separate groups, from :func:`hidden_matrices`.
    Returns:
        Groups with ``weight_decay``, sorted by falling learning rate; for each rate, groups that decay come first. Groups have ``lr_scale``
        if any factor is not 1, and those of ``hidden`` have ``hidden=True``.
    """
    scales = lr_scales or {}
    members: dict[tuple[float, bool, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim >= 2 and not name.endswith(_NO_DECAY)
            members.setdefault((scales.get(parameter, 1.0), decays, parameter in hidden), []).append(parameter)
    is_scaled = any(scale != 1 for scale, *_ in members)
    return [
        {"params": members[key], "weight_decay": weight_decay if key[1] else 0.0}
        | ({"lr_scale": key[0]} if is_scaled else {})
        | ({"hidden": True} if key[2] else {})
        for key in sorted(members, reverse=True)
    ]


def lr_scales(parts: Mapping[str, nn.Module], *, image: float, text: float, head: float, layer_decay: float) -> dict[Tensor, float]:
    """The factor on the learning rate of each parameter.

    Args:
        parts: the model's parts by name; every part that is not a tower is a head.
        image, text, head: factors of the towers and of all heads.
        layer_decay: in a tower, the rate of a block is this factor times that of the next block, and the rate of the embeddings is this
            factor times that of the first block. Layers after the blocks have the tower's rate (Clark et al. 2020; Bao et al. 2022).
    Raises:
        ModelError: ``layer_decay`` is below 1, and a trained tower has no blocks that can be counted.
    """
    scales: dict[Tensor, float] = {}
    of_towers = {"image": image, "text": text}
    for part, module in parts.items():
        scale = of_towers.get(part, head)
        scales |= dict.fromkeys(module.parameters(), scale)
        if part in TOWERS and layer_decay < 1 and _learns(module):
            blocks = _blocks(part, module, f"`layer_decay={layer_decay:g}`", "set it to 1")
            before = (parameter for name, parameter in module.named_parameters() if _BEFORE_THE_BLOCKS.search(name))
            scales |= dict.fromkeys(before, scale * layer_decay ** (len(blocks) + 1))
            for number, block in enumerate(blocks):
                scales |= dict.fromkeys(block.parameters(), scale * layer_decay ** (len(blocks) - number))
    return scales


def hidden_matrices(parts: Mapping[str, nn.Module], optimizer: str) -> set[Tensor]:
    """The weight matrices inside the towers' blocks, without tables of position biases.

    Args:
        parts: the model's parts by name.
        optimizer: the name of the optimizer that needs them, for the error message.
    Raises:
        ModelError: a trained tower has no blocks that can be counted.
    """
    return {
        parameter
        for part in TOWERS
        if part in parts and _learns(parts[part])
        for block in _blocks(part, parts[part], f"`optimizer={optimizer}`", "choose another optimizer")
        for name, parameter in block.named_parameters()
        if parameter.ndim == 2 and "bias" not in name
    }


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _blocks(part: str, tower: Any, asked: str, way_out: str) -> list[nn.Module]:
    blocks = tower.blocks()
    if not blocks:
        raise ModelError(f"{asked}: the {part} tower, {type(tower.tower).__name__}, has no blocks that could be counted; {way_out}")
    return blocks
