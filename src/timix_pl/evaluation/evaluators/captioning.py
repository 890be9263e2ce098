"""Captioning: does a model say of an image what people said of it?"""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from timix_pl.core.choices import EVALUATORS
from timix_pl.core.errors import ModelError
from timix_pl.core.metric import Metric, Unit
from timix_pl.core.types import EvaluationResult
from timix_pl.data.sets.evaluation_set import EvaluationItem
from timix_pl.evaluation.batches import EvaluationBatch, map_batches, require_captions
from timix_pl.evaluation.evaluator import Evaluator, LeftOut, RunToEvaluate
from timix_pl.evaluation.model import DualEncoderLike, evaluating
from timix_pl.evaluation.results import named
from timix_pl.evaluation.sharing import over_ranks
from timix_pl.metrics.caption_tokens import caption_tokens
from timix_pl.metrics.captioning import captioning_chance, captioning_metrics

NUM_EXAMPLES = 16
_ONE_FOR_ALL = "the best caption for all images"


@runtime_checkable
class CaptionerLike(DualEncoderLike, Protocol):
    """A model that also writes captions, such as ``timix_pl.models.captioner.Captioner``."""

    def caption(self, images: UInt8[Tensor, "B 3 H W"]) -> list[str]: ...


@EVALUATORS.register("captioning")
class Captioning(Evaluator):
    """Writes a caption for each image, and compares it with all captions that the image has.

    Args:
        dataset: images with any number of captions each, at least one.
        batch_size: images per forward pass on each rank.
        num_workers: loader processes per rank.
    """

    title = "captioning"
    metrics: ClassVar[Mapping[str, Metric]] = {
        **{f"bleu_{n}": Metric(Unit.score, higher_is_better=True, label=f"BLEU-{n}", chance=_ONE_FOR_ALL) for n in range(1, 5)},
        "rouge_l": Metric(Unit.score, higher_is_better=True, label="ROUGE-L", chance=_ONE_FOR_ALL),
        "cider_d": Metric(Unit.score, higher_is_better=True, label="CIDEr-D", chance=_ONE_FOR_ALL),
    }

    def __init__(self, dataset: Dataset[EvaluationItem], *, batch_size: int, num_workers: int = 0):
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_workers = num_workers
        self._chance: dict[str, float] | None = None

    @classmethod
    def gather(cls, run: RunToEvaluate) -> dict[str, Any]:
        """See :class:`Evaluator`."""
        if not isinstance(run.model, CaptionerLike):
            raise LeftOut("the model writes no captions (timix-train task=captioning init=RUN_DIR teaches it to)")
        given = super().gather(run)
        given["dataset"].check_captions("captioning")
        return given

    def run(self, model: DualEncoderLike, device: torch.device) -> EvaluationResult:
        """BLEU-1 to 4, ROUGE-L and CIDEr-D beside the best one caption for all; the same on every rank.

        The examples are the captions with the highest, middling and lowest CIDEr-D.

        Args:
            model: lies on ``device`` already.
        Raises:
            DataError: an image has no captions, or cannot be read.
            ModelError: the model writes no captions.
        """
        if not isinstance(model, CaptionerLike):
            raise ModelError("this model writes no captions; give one that does, such as timix_pl.models.captioner.Captioner")

        def write(batch: EvaluationBatch) -> tuple[list[str], list[tuple[str, ...]]]:
            require_captions(batch, "captioning")
            return model.caption(batch.images.to(device)), batch.captions

        with evaluating(model):
            written = map_batches(self.dataset, write, batch_size=self.batch_size, num_workers=self.num_workers)
        captions = [caption for batch, _ in written for caption in batch]
        references = [own for _, batch in written for own in batch]
        reference_words = [[caption_tokens(reference) for reference in own] for own in references]
        metrics, cider_d_of_each = captioning_metrics([caption_tokens(caption) for caption in captions], reference_words)
        if self._chance is None:
            self._chance = captioning_chance(reference_words)

        def examples(share: range) -> list[dict[str, Any]]:
            return [
                {
                    "image": self.dataset[number].image,
                    "caption": captions[number],
                    "references": list(references[number]),
                    "cider_d": cider_d_of_each[number],
                }
                for _ in share
                for number in _best_middling_and_worst(cider_d_of_each)
            ]

        return named(self, metrics, self._chance, over_ranks(1, examples))


def _best_middling_and_worst(scores: list[float]) -> list[int]:
    """Numbers of at most ``NUM_EXAMPLES`` scores, from high to low: a third of the highest, a third around the median, and the lowest."""
    order = np.argsort(-np.array(scores), kind="stable").tolist()
    if len(order) <= NUM_EXAMPLES:
        return order
    third = NUM_EXAMPLES // 3
    middle = (len(order) - third) // 2
    return [*order[:third], *order[middle : middle + third], *order[-(NUM_EXAMPLES - 2 * third) :]]
