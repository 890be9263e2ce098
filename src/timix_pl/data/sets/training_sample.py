"""A fixed part of the training pairs, read as evaluation reads them. It shows what a model does with pairs that it has learned."""

from torch.utils.data import Dataset

from timix_pl.core.errors import DataError
from timix_pl.core.randomness import seed_of
from timix_pl.data.sets.evaluation_set import EvaluationItem, EvaluationSet
from timix_pl.data.shards.reader import BadSampleError

_BLOCK = 128
_NEAR = 1000
_MAX_REPLACEMENTS = 100


class TrainingSample(Dataset[EvaluationItem]):
    """Blocks of 128 neighbouring pairs, spread evenly over the set, so that few shards are read. There is no augmentation.

    A sample that cannot be read or has no caption is replaced by one near it, always the same one. Training counts and names such samples.

    Args:
        dataset: the training shards.
        num_samples: how many at most.
    Raises:
        DataError: 100 samples in a row cannot be used.
    """

    def __init__(self, dataset: EvaluationSet, num_samples: int):
        self.dataset = dataset
        self.num_samples = min(num_samples, len(dataset))

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, number: int) -> EvaluationItem:
        chosen = self.number_in_set(number)
        for attempt in range(_MAX_REPLACEMENTS):
            draw = seed_of("training sample", chosen, attempt) % _NEAR + 1 if attempt else 0
            try:
                item = self.dataset[(chosen + draw) % len(self.dataset)]
            except BadSampleError:
                continue
            if item.captions:
                return item
        raise DataError(
            f"{self.dataset.key}: {_MAX_REPLACEMENTS} samples around number {chosen} cannot be used. 'timix-data inspect' says why"
        )

    def number_in_set(self, number: int) -> int:
        """Where the sample's item ``number`` lies in the whole set."""
        num_gaps = max(1, -(-self.num_samples // _BLOCK) - 1)
        return number + (len(self.dataset) - self.num_samples) * (number // _BLOCK) // num_gaps
