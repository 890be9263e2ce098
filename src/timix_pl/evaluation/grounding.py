"""Grounding: do patch-text alignment's heat maps point to what a phrase names."""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from timix_pl.core.errors import DataError
from timix_pl.core.types import EvaluationResult
from timix_pl.data.evaluation_set import EvaluationItem
from timix_pl.data.patch_labels import patch_labels
from timix_pl.evaluation.batches import EvaluationBatch, map_batches
from timix_pl.evaluation.model import DualEncoderLike, evaluating
from timix_pl.evaluation.results import named
from timix_pl.metrics.grounding import grounding_chance, grounding_metrics


class Grounding:
    """Compares the heat map of every phrase over its image with the phrase's box.

    Args:
        dataset: images with regions; those without any are passed over.
        batch_size: images read, and phrases scored, at a time on each rank.
        num_workers: loader processes per rank.
        min_cover: share of a patch's area that the box must cover to make the patch positive, 0 to 1; 0 means any touch.
        phrase_template: how a phrase becomes a caption, as in training.
        name: what the metrics' names begin with.
    """

    def __init__(
        self,
        dataset: Dataset[EvaluationItem],
        *,
        batch_size: int,
        num_workers: int = 0,
        min_cover: float = 0.0,
        phrase_template: str = "{}",
        name: str = "grounding",
    ):
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.min_cover = min_cover
        self.phrase_template = phrase_template
        self.name = name

    def run(self, model: DualEncoderLike, device: torch.device) -> EvaluationResult:
        """Pointing, localisation, patch precision, recall and average precision; the same on every rank.

        Args:
            model: lies on ``device`` already.
        Raises:
            DataError: no image has regions, or an image cannot be read.
            ModelError: the model has no patch-text alignment head.
        """

        def score(batch: EvaluationBatch) -> list[tuple[Tensor, Tensor]]:
            images = batch.images.to(device)
            phrases = [(i, region) for i, regions in enumerate(batch.regions) for region in regions]
            scored = []
            for start in range(0, len(phrases), self.batch_size):
                image_index, regions = zip(*phrases[start : start + self.batch_size], strict=True)
                tokens = model.tokenizer([self.phrase_template.replace("{}", region.phrase) for region in regions])
                logits = model.patch_scores(images[list(image_index)], tokens.to(device))
                scored.append((logits.float().cpu(), torch.tensor([region.bbox_xyxy_norm for region in regions])))
            return scored

        with evaluating(model):
            scored_batches = map_batches(self.dataset, score, batch_size=self.batch_size, num_workers=self.num_workers)
        scored = [phrases for batch in scored_batches for phrases in batch]
        if not scored:
            raise DataError(
                f"None of the {len(self.dataset)} evaluation images has regions, and grounding needs phrases with boxes. "  # type: ignore[arg-type]
                'Write them into the shards ("regions" in KEY.json), point data.grounding_shards at a set that has them, '
                "or leave grounding out of evaluation.tasks."
            )
        logits = torch.cat([part for part, _ in scored])
        boxes = torch.cat([part for _, part in scored])
        labels = patch_labels(boxes, (logits.shape[1], logits.shape[2]), self.min_cover)
        return named(self.name, grounding_metrics(logits, boxes, labels), grounding_chance(logits, boxes, labels))
