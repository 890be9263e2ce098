"""What the batches of all tasks have in common."""

from torch.utils.data import Dataset

from timix_pl.core.types import Batch
from timix_pl.data.images.training_images import Augmentation, TrainingImages


class StepSet(Dataset[Batch]):
    """Item ``step`` is this rank's share of the step's global batch, made from only the step's number.

    Args:
        image_size_px: height and width.
        patch_grid: rows and columns of patches.
        global_batch_size: samples per step over all ranks.
        seed: the run's seed.
        rank, world_size: which share of a batch is this rank's.
        augmentation: random changes of the images.
        max_image_px: larger images are refused before they are decoded.
    """

    def __init__(
        self,
        *,
        image_size_px: tuple[int, int],
        patch_grid: tuple[int, int],
        global_batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        augmentation: Augmentation = Augmentation(),  # noqa: B008
        max_image_px: int = 100_000_000,
    ):
        self._images = TrainingImages(image_size_px, patch_grid, augmentation, seed=seed, max_image_px=max_image_px)
        self._grid, self._seed, self.rank, self._world_size = patch_grid, seed, rank, world_size
        self.global_batch_size, self.batch_size = global_batch_size, global_batch_size // world_size

    @property
    def first(self) -> int:
        """Position of this rank's first sample in a global batch."""
        return self.rank * self.batch_size
