"""Image-text retrieval."""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from timix_pl.core.errors import DataError
from timix_pl.core.types import EvaluationResult
from timix_pl.data.evaluation_set import EvaluationItem
from timix_pl.evaluation.batches import EvaluationBatch, map_batches
from timix_pl.evaluation.model import DualEncoderLike, encode_texts, evaluating
from timix_pl.evaluation.results import named
from timix_pl.evaluation.retrieval_examples import retrieval_examples
from timix_pl.evaluation.sharing import shared_positive_ranks
from timix_pl.metrics.retrieval import retrieval_chance, retrieval_metrics


class Retrieval:
    """Finds each image's captions among all captions, and each caption's image among all images.

    Args:
        dataset: images with any number of captions each, at least one.
        batch_size: images, and captions, per forward pass on each rank.
        num_workers: loader processes per rank.
        name: what the metrics' names begin with.
    """

    def __init__(self, dataset: Dataset[EvaluationItem], *, batch_size: int, num_workers: int = 0, name: str = "retrieval"):
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.name = name

    def run(self, model: DualEncoderLike, device: torch.device) -> EvaluationResult:
        """Recall at 1, 5 and 10 and median rank both ways, and the mean recall; the same on every rank.

        Args:
            model: lies on ``device`` already.
        Raises:
            DataError: an image has no captions, or cannot be read.
        """

        def encode(batch: EvaluationBatch) -> tuple[Tensor, list[tuple[str, ...]]]:
            _require_captions(batch)
            return model.encode_image(batch.images.to(device)).float().cpu(), batch.captions

        with evaluating(model):
            encoded = map_batches(self.dataset, encode, batch_size=self.batch_size, num_workers=self.num_workers)
            image_features = torch.cat([features for features, _ in encoded])
            captions_of_image = [captions for _, batch in encoded for captions in batch]
            captions = [caption for captions in captions_of_image for caption in captions]
            text_features = encode_texts(model, captions, self.batch_size, device)

            captions_per_image = [len(captions) for captions in captions_of_image]
            images = torch.arange(len(image_features))
            image_of_text = images.repeat_interleave(torch.tensor(captions_per_image))
            image_to_text_ranks = shared_positive_ranks(image_features, text_features, images, image_of_text, device)
            text_to_image_ranks = shared_positive_ranks(text_features, image_features, image_of_text, images, device)

        ranks = image_to_text_ranks, text_to_image_ranks
        examples = retrieval_examples(self.dataset, captions, image_of_text, image_features, text_features, *ranks)
        return named(self.name, retrieval_metrics(*ranks), retrieval_chance(captions_per_image), examples)


def _require_captions(batch: EvaluationBatch) -> None:
    for key, captions in zip(batch.keys, batch.captions, strict=True):
        if not captions:
            raise DataError(
                f"Sample '{key}' has no captions, and retrieval needs at least one for every image. Write them into its shard "
                f'({key}.txt, or "captions" in {key}.json), or leave retrieval out of evaluation.tasks.'
            )
