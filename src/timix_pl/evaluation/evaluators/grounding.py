"""Grounding: do patch-text alignment's heat maps point to what a phrase names."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from timix_pl.core.choices import EVALUATORS
from timix_pl.core.errors import DataError
from timix_pl.core.metric import Metric, Unit
from timix_pl.core.types import EvaluationResult
from timix_pl.data.sets.evaluation_set import EvaluationItem
from timix_pl.data.sets.patch_labels import boxes_by_phrase, patch_labels
from timix_pl.evaluation.batches import EvaluationBatch, map_batches
from timix_pl.evaluation.evaluator import Evaluator, LeftOut, RunToEvaluate, required
from timix_pl.evaluation.model import DualEncoderLike, evaluating
from timix_pl.evaluation.results import named
from timix_pl.metrics.grounding import grounding_chance, grounding_metrics


class ScoredPhrases(NamedTuple):
    """Heat maps of R phrases, and each one's boxes."""

    logits: Float[Tensor, "R h w"]
    boxes_xyxy_norm: Sequence[Float[Tensor, "_ 4"]]


@EVALUATORS.register("grounding")
class Grounding(Evaluator):
    """Compares the heat map of every phrase over its image with the phrase's boxes.

    A phrase that an image has several times ("person") is one phrase with several boxes, as in training.

    Args:
        dataset: images with regions; those without any are passed over.
        batch_size: images read, and phrases scored, at a time on each rank.
        num_workers: loader processes per rank.
        min_cover: share of a patch's area that a box must cover to make the patch positive, 0 to 1; 0 means any touch.
        phrase_template: how a phrase becomes a caption, as in training.
    """

    title = "grounding"
    gathered: ClassVar[Mapping[str, str]] = {
        "dataset": "data.grounding_shards",
        "min_cover": "pta.min_cover",
        "phrase_template": "data.phrase_template",
    }
    metrics: ClassVar[Mapping[str, Metric]] = {
        "pointing": Metric(Unit.share, higher_is_better=True, label="pointing", chance="a random patch"),
        "pointing_centre": Metric(Unit.share, higher_is_better=True, label="pointing centre", chance="a random patch"),
        "localisation": Metric(Unit.share, higher_is_better=True, label="localisation", chance="the best fixed box"),
        "patch_precision": Metric(Unit.share, higher_is_better=True, label="patch precision", chance="random patches"),
        "patch_recall": Metric(Unit.share, higher_is_better=True, label="patch recall", chance="as many random patches"),
        "patch_ap": Metric(Unit.share, higher_is_better=True, label="patch AP", chance="a random order"),
        "patch_calibration_error": Metric(higher_is_better=False, label="patch calibration error"),
        "patch_brier_score": Metric(
            higher_is_better=False, label="patch Brier score", chance="the share of positive patches as the probability of each"
        ),
    }

    def __init__(
        self,
        dataset: Dataset[EvaluationItem],
        *,
        batch_size: int,
        num_workers: int = 0,
        min_cover: float = 0.0,
        phrase_template: str = "{}",
    ):
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.min_cover = min_cover
        self.phrase_template = phrase_template

    @classmethod
    def gather(cls, run: RunToEvaluate) -> dict[str, Any]:
        """See :class:`Evaluator`."""
        if run.model.pta is None:
            raise LeftOut("the model has no PTA head")
        given = {name: run.value(cls.gathered[name]) for name in ("min_cover", "phrase_template")}
        if (dataset := run.evaluation_set("grounding")) is not None:
            return given | {"dataset": dataset}
        dataset = required(run.evaluation_set("val"), cls.gathered["dataset"])
        if not dataset.has_regions():
            raise LeftOut(
                "no box was found in the samples of data.val_shards that were looked at; if you have images with boxes, name them in "
                "data.grounding_shards"
            )
        return given | {"dataset": dataset}

    def run(self, model: DualEncoderLike, device: torch.device) -> EvaluationResult:
        """Pointing, localisation, patch precision, recall and average precision, and calibration; the same on every rank.

        Args:
            model: lies on ``device`` already.
        Raises:
            DataError: no image has regions, or an image cannot be read.
            ModelError: the model has no patch-text alignment head.
        """

        def score(batch: EvaluationBatch) -> list[ScoredPhrases]:
            images = batch.images.to(device)
            phrases = [(i, phrase, boxes) for i, regions in enumerate(batch.regions) for phrase, boxes in boxes_by_phrase(regions).items()]
            scored = []
            for start in range(0, len(phrases), self.batch_size):
                image_index, texts, boxes = zip(*phrases[start : start + self.batch_size], strict=True)
                tokens = model.tokenizer([self.phrase_template.replace("{}", text) for text in texts])
                logits = model.patch_scores(images[list(image_index)], tokens.to(device))
                scored.append(ScoredPhrases(logits.float().cpu(), boxes))
            return scored

        with evaluating(model):
            scored_batches = map_batches(self.dataset, score, batch_size=self.batch_size, num_workers=self.num_workers)
        scored = [phrases for batch in scored_batches for phrases in batch]
        if not scored:
            raise DataError(
                "None of the evaluation images has regions, and grounding needs phrases with boxes. "
                'Write them into the shards ("regions" in KEY.json), point `dataset` at a set that has them, '
                "or leave grounding out of `evaluators`."
            )
        logits = torch.cat([phrases.logits for phrases in scored])
        boxes_of_phrase = [boxes for phrases in scored for boxes in phrases.boxes_xyxy_norm]
        grid = (logits.shape[1], logits.shape[2])
        labels = torch.stack([patch_labels(boxes, grid, self.min_cover).amax(dim=0) for boxes in boxes_of_phrase])
        phrase_of_box = torch.arange(len(logits)).repeat_interleave(torch.tensor([len(boxes) for boxes in boxes_of_phrase]))
        against = (logits, torch.cat(boxes_of_phrase), phrase_of_box, labels)
        return named(self, grounding_metrics(*against), grounding_chance(*against))
