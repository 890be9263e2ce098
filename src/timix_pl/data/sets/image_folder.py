"""Labelled images in a folder with one sub-folder per class."""

import logging
import os
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import Dataset

from timix_pl.core.errors import DataError
from timix_pl.data.images.decode import open_image
from timix_pl.data.sets.evaluation_set import EvaluationItem, centre_crop
from timix_pl.data.shards.reader import BadSampleError

log = logging.getLogger(__name__)

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class ImageFolder(Dataset[EvaluationItem]):
    """The images of ``FOLDER/CLASS/.../NAME.jpg``, class by class.

    ``extra["label"]`` is the place of CLASS among ``class_folders``, which are sorted by name. Images are found and numbered as
    torchvision's ``ImageFolder`` does, and prepared as ``EvaluationSet`` does. Hidden folders are skipped.

    Args:
        folder: the folder of class folders.
        key: what the user calls it, for messages.
        image_size_px: height and width of the crop.
        max_image_px, max_image_mb: larger images are refused, before they are decoded or read.
    Raises:
        DataError: a class has no images; an image that cannot be read or decoded.
    """

    def __init__(
        self,
        folder: str | Path,
        image_size_px: tuple[int, int],
        *,
        key: str = "folder",
        max_image_px: int = 100_000_000,
        max_image_mb: float = 100.0,
    ):
        self.folder = Path(folder).expanduser()
        self._size, self._max_image_px, self._max_image_mb = image_size_px, max_image_px, max_image_mb
        self.class_folders = sorted(entry.name for entry in os.scandir(self.folder) if entry.is_dir() and not entry.name.startswith("."))
        self._paths: list[str] = []
        self._labels: list[int] = []
        num_others = 0
        for label, name in enumerate(self.class_folders):
            walk = sorted(os.walk(self.folder / name, followlinks=True))
            files = [f"{parent[len(str(self.folder)) + 1 :]}/{file}" for parent, _, names in walk for file in sorted(names)]
            images = [file for file in files if file.lower().endswith(IMAGE_EXTENSIONS)]
            if not images:
                raise DataError(
                    f"{key}={folder}: the class folder {name} has no images ({', '.join(IMAGE_EXTENSIONS)}). Restore them, or remove it."
                )
            num_others += len(files) - len(images)
            self._paths += images
            self._labels += [label] * len(images)
        if num_others:
            log.warning("%s=%s: %d files that are no images (%s) are left out", key, folder, num_others, ", ".join(IMAGE_EXTENSIONS))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> EvaluationItem:
        name = self._paths[number]
        return EvaluationItem(name, self._pixels(self.folder / name), (), (), {"label": self._labels[number]})

    def _pixels(self, path: Path) -> UInt8[Tensor, "3 H W"]:
        try:
            if (size := path.stat().st_size) > self._max_image_mb * 1e6:
                raise BadSampleError(f"it has {size / 1e6:.1f} MB, more than `max_image_mb={self._max_image_mb}`")
            return centre_crop(open_image(path.read_bytes(), max_image_px=self._max_image_px), self._size)[0]
        except (BadSampleError, OSError) as error:
            raise BadSampleError(f"{path}: {error}; repair or remove it, evaluation leaves nothing out") from error
