"""One optimizer step in chunks whose gradients are those of the whole batch.

A contrastive loss compares every pair with every other, so a loss per chunk is another loss. Instead each chunk is encoded twice: first
without gradients, to have all features; the loss of all of them gives the gradient of each feature; then with gradients, to pass these on
to the weights (GradCache: Gao et al. 2021). Between the two passes nothing changes: the mixing plan is kept, and dropout draws the same.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from timix_pl.core.distributed import sum_over_ranks
from timix_pl.core.types import Batch, LossOutput, MixPlan, RegionBatch, Windows
from timix_pl.mixing.step import MixStep
from timix_pl.models.dual_encoder import Encoded
from timix_pl.training.objective import Objective

FEATURES = ("image_features", "text_features", "mixed_image_features", "mixed_text_features")
SHARED = ("logit_scale", "logit_bias")


class Chunk(NamedTuple):
    """Some rows of this rank's batch with their mixing. The last chunk of a step also holds its region batch."""

    pairs: Batch
    mix: MixStep | None
    regions: RegionBatch | None = None


def split(pairs: Batch, size: int) -> list[Batch]:
    """The batch in parts of ``size`` rows."""
    parts = []
    for start in range(0, len(pairs.images), size):
        rows = slice(start, start + size)
        parts.append(
            pairs._replace(
                images=pairs.images[rows],
                tokens=pairs.tokens[rows],
                keys=pairs.keys[rows],
                captions=pairs.captions[rows],
                first=pairs.first + start,
                shards=pairs.shards[rows],
            )
        )
    return parts


def accumulate(
    chunks: list[Chunk],
    encode: Callable[[Chunk], Encoded],
    objective: Objective,
    gamma: float,
    backward: Callable[[Tensor, Encoded, bool], None],
) -> tuple[Encoded, LossOutput]:
    """The loss and the gradients of the whole batch, chunk by chunk.

    Args:
        encode: one chunk through the model; the same chunk twice gives the same features.
        gamma: weight of the mixed images' loss.
        backward: takes a scalar whose gradient by way of one chunk is the loss's, the chunk's features, and whether it is the last.
    Returns:
        The features of the whole batch and the last chunk's region logits, and the loss, all detached.
    """
    with torch.no_grad():
        first_pass = [encode(chunk._replace(regions=None)) for chunk in chunks]
    whole = _joined(first_pass, [chunk.pairs.first - chunks[0].pairs.first for chunk in chunks])
    leaves = {name: value.detach().requires_grad_() for name in FEATURES + SHARED if (value := getattr(whole, name)) is not None}
    output = objective.contrastive(whole._replace(**leaves), first=chunks[0].pairs.first, gamma=gamma)
    gradients = dict(zip(leaves, torch.autograd.grad(output.loss, list(leaves.values()), materialize_grads=True), strict=True))
    by_chunk = {name: gradients[name].split([len(getattr(part, name)) for part in first_pass]) for name in FEATURES if name in leaves}
    terms, loss = {name: value.detach() for name, value in output.terms.items()}, output.loss.detach()
    for number, (chunk, before) in enumerate(zip(chunks, first_pass, strict=True)):
        last = number == len(chunks) - 1
        mix = None if chunk.mix is None else replace(chunk.mix, planned=before.plan)
        encoded = encode(chunk._replace(mix=mix))
        passed_on = [(getattr(encoded, name) * gradient[number]).sum() for name, gradient in by_chunk.items()]
        if last:
            passed_on += [(getattr(encoded, name) * gradients[name]).sum() for name in SHARED if name in leaves]
        if encoded.region_logits is not None and chunk.regions is not None:
            num_phrases = sum_over_ranks(loss.new_full((), len(chunk.regions.patch_labels)))
            term = objective.regions(encoded.region_logits, chunk.regions.patch_labels, num_phrases)
            passed_on.append(objective.pta_weight * term)
            terms["patch_text"] = term.detach()
            loss = loss + passed_on[-1].detach()
        backward(torch.stack(passed_on).sum(), encoded, last)
    region_logits = None if encoded.region_logits is None else encoded.region_logits.detach()
    return whole._replace(region_logits=region_logits), LossOutput(loss, terms)


def _joined(parts: list[Encoded], offsets: list[int]) -> Encoded:
    """The features of all parts as one batch; rows of their plans count from the batch's first row."""
    present = [name for name in FEATURES if getattr(parts[0], name) is not None]
    features: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in present}
    plans = [(part.plan, offset) for part, offset in zip(parts, offsets, strict=True) if part.plan is not None]
    return parts[0]._replace(plan=_joined_plan(plans) if plans else None, **features)


def _joined_plan(plans: list[tuple[MixPlan, int]]) -> MixPlan:
    windows = [plan.windows for plan, _ in plans if plan.windows is not None]
    return MixPlan(
        torch.cat([plan.rows + offset for plan, offset in plans]),
        torch.cat([plan.partners + offset for plan, offset in plans]),
        torch.cat([plan.lam for plan, _ in plans]),
        Windows(windows[0].side, torch.cat([w.target for w in windows]), torch.cat([w.source for w in windows])) if windows else None,
    )
