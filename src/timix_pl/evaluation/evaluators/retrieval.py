"""Image-text retrieval."""

from collections.abc import Mapping
from functools import partial
from statistics import fmean
from typing import Any, ClassVar

import torch
from torch.utils.data import Dataset

from timix_pl.core.choices import EVALUATORS
from timix_pl.core.errors import DataError
from timix_pl.core.metric import Metric, Unit
from timix_pl.core.types import EvaluationResult
from timix_pl.data.sets.evaluation_set import EvaluationItem
from timix_pl.evaluation.batches import EvaluationBatch, require_captions
from timix_pl.evaluation.evaluator import Evaluator, RunToEvaluate
from timix_pl.evaluation.model import DualEncoderLike, encode_images, encode_texts, evaluating
from timix_pl.evaluation.results import named
from timix_pl.evaluation.retrieval_examples import retrieval_examples
from timix_pl.evaluation.sharing import over_ranks, shared_ranking
from timix_pl.metrics.retrieval import MAP_AT, RECALL_AT, retrieval_chance, retrieval_metrics


@EVALUATORS.register("retrieval")
class Retrieval(Evaluator):
    """Finds each image's captions among all captions, and each caption's image among all images.

    Args:
        dataset: images with any number of captions each, at least one.
        batch_size: images, and captions, per forward pass on each rank.
        num_workers: loader processes per rank.
        captions_per_image: take the first so many of each image; None: all.
        num_folds: cut the set by position into so many parts, retrieve in each, and average.
    """

    title = "retrieval"
    gathered: ClassVar[Mapping[str, str]] = {"dataset": "data.val_shards", "num_folds": "evaluation.retrieval_folds"}
    metrics: ClassVar[Mapping[str, Metric]] = {
        **{
            f"*/recall_at_{k}": Metric(Unit.share, higher_is_better=True, label=f"{{}}, recall at {k}", chance="a random order")
            for k in RECALL_AT
        },
        f"*/map_at_{MAP_AT}": Metric(Unit.share, higher_is_better=True, label=f"{{}}, mAP at {MAP_AT}", chance="a random order"),
        "*/median_rank": Metric(Unit.rank, higher_is_better=False, label="{}, median rank", chance="a random order"),
        "*/mean_rank": Metric(Unit.rank, higher_is_better=False, label="{}, mean rank", chance="a random order"),
        "mean_recall": Metric(Unit.share, higher_is_better=True, label="mean recall", chance="a random order"),
    }

    def __init__(
        self,
        dataset: Dataset[EvaluationItem],
        *,
        batch_size: int,
        num_workers: int = 0,
        captions_per_image: int | None = None,
        num_folds: int = 1,
    ):
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.captions_per_image = captions_per_image
        self.num_folds = num_folds

    @classmethod
    def gather(cls, run: RunToEvaluate) -> dict[str, Any]:
        """See :class:`Evaluator`."""
        given = super().gather(run)
        given["dataset"].check_captions("retrieval")
        return given | {"num_folds": run.value(cls.gathered["num_folds"])}

    def run(self, model: DualEncoderLike, device: torch.device) -> EvaluationResult:
        """Recall at 1, 5 and 10, mAP at 10, median and mean rank both ways, and the mean recall; the same on every rank.

        Args:
            model: lies on ``device`` already.
        Raises:
            DataError: an image has no captions or too few, cannot be read, or the folds do not divide the set.
        """
        num_images = len(self.dataset)  # type: ignore[arg-type]
        if num_images % self.num_folds:
            raise DataError(
                f"`num_folds={self.num_folds}` does not divide the {num_images} images of the set. Published folds have "
                "equally many images; choose another number, or 1 for the whole set."
            )

        with evaluating(model):
            image_features, captions_of_image = encode_images(
                model, self.dataset, self._captions, batch_size=self.batch_size, num_workers=self.num_workers, device=device
            )
            captions_per_image = [len(captions) for captions in captions_of_image]
            captions = [caption for captions in captions_of_image for caption in captions]
            text_features = encode_texts(model, captions, self.batch_size, device)

        metrics, chance, examples = [], [], []
        images = torch.arange(num_images)
        image_of_text = images.repeat_interleave(torch.tensor(captions_per_image))
        for fold in images.chunk(self.num_folds):
            first, stop = int(fold[0]), int(fold[-1]) + 1
            texts = slice(*torch.searchsorted(image_of_text, torch.tensor([first, stop])).tolist())
            of_images, of_texts = image_features[first:stop], text_features[texts]
            image_to_text = shared_ranking(of_images, of_texts, fold, image_of_text[texts], MAP_AT, device)
            text_to_image = shared_ranking(of_texts, of_images, image_of_text[texts], fold, MAP_AT, device)
            if first == 0:
                of_first = image_of_text[texts], of_images, of_texts, image_to_text.best_rank, text_to_image.best_rank
                examples = over_ranks(1, partial(self._examples, captions, *of_first))
            metrics.append(retrieval_metrics(image_to_text, text_to_image))
            chance.append(retrieval_chance(captions_per_image[first:stop]))
        return named(self, _mean(metrics), _mean(chance), examples)

    def _examples(self, *found_and_share: Any) -> list[dict[str, Any]]:
        *found, share = found_and_share
        return [example for _ in share for example in retrieval_examples(self.dataset, *found)]

    def _captions(self, batch: EvaluationBatch) -> list[tuple[str, ...]]:
        require_captions(batch, "retrieval")
        for key, captions in zip(batch.keys, batch.captions, strict=True):
            if len(captions) < (self.captions_per_image or 1):
                raise DataError(
                    f"Sample '{key}' has {len(captions)} captions, fewer than `captions_per_image={self.captions_per_image}`. "
                    "Choose a smaller number, or `captions_per_image=None` for all captions that there are."
                )
        return [captions[: self.captions_per_image] for captions in batch.captions]


def _mean(folds: list[dict[str, float]]) -> dict[str, float]:
    return {name: fmean(fold[name] for fold in folds) for name in folds[0]}
