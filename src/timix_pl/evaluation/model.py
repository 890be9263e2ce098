"""What evaluators ask of a model, and how they treat it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.utils.data import Dataset

from timix_pl.core.distributed import gather_rows
from timix_pl.data.sets.evaluation_set import EvaluationItem
from timix_pl.evaluation.batches import EvaluationBatch, map_batches
from timix_pl.evaluation.sharing import over_ranks

Described = TypeVar("Described")


@runtime_checkable
class DualEncoderLike(Protocol):
    """The part of ``timix_pl.models.dual_encoder.DualEncoder`` that evaluators use; any module that has it can be evaluated."""

    tokenizer: Callable[[list[str]], Int[Tensor, "B T"]]

    def modules(self) -> Iterator[nn.Module]: ...

    def __call__(self, images: UInt8[Tensor, "B 3 H W"], tokens: Int[Tensor, "B T"], *, mix: Any = None) -> Any: ...

    def encode_image(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]: ...

    def encode_text(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B D"]: ...

    def patch_scores(self, images: UInt8[Tensor, "B 3 H W"], tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B h w"]: ...


@contextmanager
def evaluating(model: DualEncoderLike) -> Iterator[None]:
    """Evaluation mode and no gradients inside; afterwards every module is back in the mode that it had."""
    was_training = {module: module.training for module in model.modules()}
    for module in was_training:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in was_training.items():
            module.training = training


def encode_texts(model: DualEncoderLike, texts: Sequence[str], batch_size: int, device: torch.device) -> Float[Tensor, "N D"]:
    """Features of all texts in their order, on the CPU, on every rank. All ranks encode; a text that comes again is encoded once."""
    number = {text: n for n, text in enumerate(dict.fromkeys(texts))}
    distinct = list(number)
    batches = [distinct[i : i + batch_size] for i in range(0, len(distinct), batch_size)]
    own_features: list[Tensor] = []

    def encode(share: range) -> list[None]:
        own_features.extend(model.encode_text(model.tokenizer(batches[b]).to(device)).float().cpu() for b in share)
        return []

    over_ranks(len(batches), encode)
    features = gather_rows(own_features, device)
    return features if len(distinct) == len(texts) else features[[number[text] for text in texts]]


def encode_images(
    model: DualEncoderLike,
    dataset: Dataset[EvaluationItem],
    describe: Callable[[EvaluationBatch], Sequence[Described]],
    *,
    batch_size: int,
    num_workers: int,
    device: torch.device,
) -> tuple[Float[Tensor, "N D"], list[Described]]:
    """Features of all images in their order, on the CPU, and what ``describe`` finds of each, on every rank. All ranks encode.

    Raises:
        DataError: the data set is empty, or a sample cannot be read.
        TimixError: ``describe`` raised it.
    """
    own_features: list[Tensor] = []

    def encode(batch: EvaluationBatch) -> Sequence[Described]:
        described = describe(batch)
        own_features.append(model.encode_image(batch.images.to(device)).float().cpu())
        return described

    described = map_batches(dataset, encode, batch_size=batch_size, num_workers=num_workers)
    return gather_rows(own_features, device), [value for batch in described for value in batch]
