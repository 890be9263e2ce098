"""One optimizer step in chunks, with the same gradients as for the whole batch.

Terms that are means over items can be added up over chunks. A contrastive loss cannot, because it compares every pair with every other.
With it, each chunk is encoded twice (GradCache: Gao et al. 2021): first without gradients, to get all features; their loss gives the
gradient of each feature. Then with gradients, to propagate these gradients to the weights. Both passes are equal: the second one uses the
first one's mixing plan, and dropout draws the same values.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from timix_pl.core.types import Batch, LossOutput, MixPlan, Windows
from timix_pl.mixing.step import MixStep
from timix_pl.models.dual_encoder import NUM_TEXTS
from timix_pl.models.encoded import Encoded
from timix_pl.models.patch_dropout import PatchDropout, num_kept_patches
from timix_pl.training.objective import Contrastive, Objective

FEATURES = ("image_features", "text_features", "mixed_image_features", "mixed_text_features")
OF_HEAD = ("region_logits", "mixed_logits", "mixed_labels")
SHARED = ("logit_scale", "logit_bias")


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some rows of this rank's batch, with their mixing and patch dropout.

    Args:
        with_sums: also compute the terms that are sums over items.
    """

    batch: Batch
    mix: MixStep | None = None
    dropout: PatchDropout | None = None
    with_sums: bool = True

    def encode(self, model: Callable[..., Encoded]) -> Encoded:
        """Run the model on the chunk."""
        arguments, options = self.batch.model_input()
        own = {"mix": self.mix, "dropout": self.dropout, "with_sums": None if self.with_sums else False}
        return model(*arguments, **options | {name: value for name, value in own.items() if value is not None})


def num_mixed_labels(chunks: Sequence[Chunk], num_patches: int) -> dict[str, int]:
    """The number of patch labels of the mixed images that teach the PTA head, for :meth:`Objective.count_items`; empty if none do."""
    rows = [len(chunk.mix.rows) for chunk in chunks if chunk.mix is not None and chunk.mix.teaches]
    dropout = chunks[0].dropout
    kept = num_patches if dropout is None else num_kept_patches(num_patches, dropout.share)
    return {"patch_text_mixed": NUM_TEXTS * sum(rows) * kept} if rows else {}


def accumulate(
    chunks: Sequence[Chunk],
    encode: Callable[[Chunk], Encoded],
    objective: Objective,
    num_items: Mapping[str, Tensor],
    gamma: float,
    backward: Callable[[Tensor, Encoded, bool], None],
) -> tuple[Encoded, LossOutput]:
    """The loss and the gradients of the whole batch, chunk by chunk.

    Args:
        chunks: one or more.
        encode: runs the model on a chunk. Must give the same features if called twice with the same chunk.
        num_items: the number of items of each term over items, in the global batch.
        gamma: weight of the mixed images' loss.
        backward: called with a scalar whose gradient is the loss's gradient through one chunk, the chunk's features, and whether it is the
            last call.
    Returns:
        The features of the whole batch with the PTA head's logits in the last chunk, and the loss. Detached if there are several chunks.
    """
    if len(chunks) == 1:
        encoded = encode(chunks[0])
        output = objective(encoded, chunks[0].batch, num_items, gamma=gamma)
        backward(output.loss, encoded, True)
        return encoded, output
    compared = None
    if objective.contrastive is not None:
        compared = _FirstPass(chunks, encode, objective.contrastive, gamma)
        chunks = compared.planned
    loss = torch.zeros((), device=chunks[0].batch.images.device)
    terms: dict[str, Tensor] = {}
    for number, chunk in enumerate(chunks):
        encoded, last = encode(chunk), number == len(chunks) - 1
        output = objective.of_items(encoded, chunk.batch, num_items)
        parts = [output.loss] if output.terms else []
        loss = loss + output.loss.detach() if output.terms else loss
        terms |= {name: terms[name] + value.detach() if name in terms else value.detach() for name, value in output.terms.items()}
        if compared is not None:
            parts += compared.passed_on(encoded, number, last)
        backward(torch.stack(parts).sum(), encoded, last)
    if compared is None:
        return encoded, LossOutput(loss, terms)
    of_head: dict[str, Any] = {name: None if (value := getattr(encoded, name)) is None else value.detach() for name in OF_HEAD}
    of_pairs = {name: value.detach() for name, value in compared.output.terms.items()}
    return replace(compared.whole, **of_head), LossOutput(compared.output.loss.detach() + loss, of_pairs | terms)


class _FirstPass:
    """The contrastive loss of all chunks, and its gradient with respect to each feature."""

    def __init__(self, chunks: Sequence[Chunk], encode: Callable[[Chunk], Encoded], contrastive: Contrastive, gamma: float):
        with torch.no_grad():
            self._parts = [encode(replace(chunk, with_sums=False)) for chunk in chunks]
        self.whole = joined(self._parts, [chunk.batch.first - chunks[0].batch.first for chunk in chunks])
        self.planned = [
            replace(chunk, mix=replace(chunk.mix, planned=part.plan)) if chunk.mix is not None else chunk
            for chunk, part in zip(chunks, self._parts, strict=True)
        ]
        leaves = {name: value.detach().requires_grad_() for name, value in _tensors(self.whole).items()}
        self.output = contrastive(_with(self.whole, leaves), first=chunks[0].batch.first, gamma=gamma)
        gradients = torch.autograd.grad(self.output.loss, list(leaves.values()), materialize_grads=True)
        self._gradients = dict(zip(leaves, gradients, strict=True))
        self._by_chunk = {
            name: self._gradients[name].split([len(_tensors(part)[name]) for part in self._parts]) for name in leaves if name not in SHARED
        }

    def passed_on(self, encoded: Encoded, number: int, last: bool) -> list[Tensor]:
        """Scalars whose gradients are the loss's gradients through this chunk. The last chunk also has the values that all chunks share."""
        values = _tensors(encoded)
        of_chunk = [(values[name] * gradient[number]).sum() for name, gradient in self._by_chunk.items()]
        return of_chunk + [(values[name] * self._gradients[name]).sum() for name in SHARED if last and name in self._gradients]


_TERM = "term "


def _tensors(encoded: Encoded) -> dict[str, Tensor]:
    """The tensors that the contrastive terms read, by name."""
    own = {name: value for name in FEATURES + SHARED if (value := getattr(encoded, name)) is not None}
    return own | {f"{_TERM}{name}": rows for name, rows in encoded.term_rows.items()}


def _with(encoded: Encoded, values: Mapping[str, Tensor]) -> Encoded:
    own: dict[str, Any] = {name: value for name, value in values.items() if not name.startswith(_TERM)}
    return replace(encoded, **own, term_rows={name.removeprefix(_TERM): v for name, v in values.items() if name.startswith(_TERM)})


def joined(parts: Sequence[Encoded], offsets: Sequence[int]) -> Encoded:
    """Concatenate the features of all parts. Rows in their plans are shifted to count from the batch's first row; mosaics are left out."""
    rows = {name: torch.cat([_tensors(part)[name] for part in parts]) for name in _tensors(parts[0]) if name not in SHARED}
    shared = {name: value for name in SHARED if (value := getattr(parts[0], name)) is not None}
    plans = [(part.plan, offset) for part, offset in zip(parts, offsets, strict=True) if part.plan is not None]
    return replace(_with(parts[0], rows | shared), plan=_joined_plan(plans) if plans else None)


def _joined_plan(plans: Sequence[tuple[MixPlan, int]]) -> MixPlan:
    windows = [plan.windows for plan, _ in plans if plan.windows is not None]
    return MixPlan(
        torch.cat([plan.rows + offset for plan, offset in plans]),
        torch.cat([plan.partners + offset for plan, offset in plans]),
        torch.cat([plan.lam for plan, _ in plans]),
        Windows(windows[0].side, torch.cat([w.target for w in windows]), torch.cat([w.source for w in windows])) if windows else None,
    )
