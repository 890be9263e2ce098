"""What a model costs: parameters and FLOPs, counted on the meta device."""

import math

import torch
from torch.utils.flop_counter import FlopCounterMode

from timix_pl.config.schema import Compute, MixingKind, RootConfig
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.models.patch_dropout import num_kept_patches

_BACKWARD = 2
"""A backward pass costs about twice its forward pass."""


def describe_cost(cfg: RootConfig, model: DualEncoder) -> str:
    """Parameters of each tower, and FLOPs of one pair in a training step without the small PTA head, as lines of text.

    Args:
        model: on the meta device. FLOPs are two per multiply-add, counted by PyTorch; backward passes are taken as twice the forward ones.
    """
    images = torch.zeros(1, 3, *model.image_size_px, device="meta")
    tokens = torch.zeros(1, model.tokenizer(["a"]).shape[1], dtype=torch.long, device="meta")
    num_kept = num_kept_patches(math.prod(model.patch_grid), model.patch_dropout)
    keep = torch.empty(1, num_kept, dtype=torch.long, device="meta") if model.patch_dropout else None
    image, text = _flops(lambda: model.image(images, keep=keep)), _flops(lambda: model.text(tokens))
    to_block, level = _flops(lambda: model.image(images, stop=model.image.block)), model.mixing_level
    to_level = 0 if level is None else _flops(lambda: model.image(images, stop=level))
    parts = {"clean image": image * (1 + _BACKWARD), "caption": text * (1 + _BACKWARD)}
    if cfg.mixing.kind == MixingKind.mixgen:
        parts["joined caption"] = round(cfg.mixing.ratio * text) * (1 + _BACKWARD)
    if cfg.mixing.kind != MixingKind.none:
        if cfg.mixing.compute == Compute.extra:
            parts["mixed image"] = round(cfg.mixing.ratio * (image - to_level)) * (1 + _BACKWARD)
        elif cfg.mixing.kind == MixingKind.timix:
            parts["scoring of images to be mixed"] = round(cfg.mixing.ratio * max(to_block - to_level, 0))
    if model.pta is not None:
        share = cfg.pta.batch_size / cfg.pta.every_n_steps / cfg.data.global_batch_size
        parts["region images up to pta.block"] = round(share * to_block) * (1 + _BACKWARD)
        parts["phrases, at most"] = round(share * cfg.data.max_phrases * text) * (1 + _BACKWARD)
    lines = ["Parameters"]
    for name, module in (("image tower", model.image), ("text tower", model.text), ("PTA head", model.pta)):
        lines.append(f"  {name:<32}{sum(p.numel() for p in module.parameters()) if module is not None else 0:>16,}")
    lines += [
        f"Patch grid {model.patch_grid[0]} x {model.patch_grid[1]}, images of {model.image_size_px[0]} x {model.image_size_px[1]} pixels"
    ]
    lines += ["FLOPs of one pair in a training step, forward and backward"]
    lines += [f"  {name:<32}{value / 1e9:>12.3f} GFLOP" for name, value in (*parts.items(), ("together", sum(parts.values())))]
    return "\n".join(lines)


def _flops(run: object) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()  # type: ignore[operator]
    return counter.get_total_flops()
