"""Draw the heat map of a phrase over a photo."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from timix_pl.building.assemble import load_model
from timix_pl.building.keys import RUN
from timix_pl.config.saved import pretrained_run_of
from timix_pl.config.validate import is_pretraining
from timix_pl.core.errors import DataError, ModelError, RunError, in_keys
from timix_pl.core.files import atomic_path, nearest_path
from timix_pl.data.images.augment import Crop
from timix_pl.data.images.decode import open_image
from timix_pl.data.sets.evaluation_set import centre_crop
from timix_pl.reports.pictures import heat_picture
from timix_pl.runs.evaluate import read_run

FOLDER = "heat_maps"
"""Sub-folder of a run's folder."""

MARK = ("Software", "timix-pl")
"""Metadata of each PNG. A file without it is not overwritten."""


class DrawnHeatMap(NamedTuple):
    """A heat map on the patch grid, the crop of the photo that it covers, and the path of the picture."""

    path: Path
    checkpoint: Path
    step: int
    probabilities: Float[Tensor, "h w"]
    crop: Crop

    def told(self) -> str:
        """Lines with the picture's path and a summary of the heat map; rows and columns count from 1."""
        height, width = self.probabilities.shape
        row, column = divmod(int(self.probabilities.argmax()), width)
        x, y = (self.crop.x1 - self.crop.x0, self.crop.y1 - self.crop.y0)
        whole = min(x, y) > 0.999
        seen = "the whole image" if whole else f"its centre, {x:.0%} of the width and {y:.0%} of the height; the rest is cropped away"
        return (
            f"Checkpoint: {self.checkpoint}, step {self.step:,}\n"
            f"Image: {seen}\n"
            f"Best patch: row {row + 1} of {height}, column {column + 1} of {width}\n"
            f"Probability: {float(self.probabilities.min()):.3f} to {float(self.probabilities.max()):.3f}\n"
            f"Heat map: {self.path}"
        )


@in_keys(RUN)
@torch.no_grad()
def draw_heat_map(checkpoint: Path, image: Path, text: str, out: Path | None = None, overrides: Sequence[str] = ()) -> DrawnHeatMap:
    """Write the heat map of ``text`` over a photo of any size as a PNG.

    Args:
        checkpoint: a run directory (for its newest checkpoint), or a checkpoint inside one.
        text: the phrase; it is inserted into ``data.phrase_template``.
        out: path of the PNG; None: ``RUN_DIR/heat_maps/IMAGE-TEXT.png``.
        overrides: of the run's configuration.
    Raises:
        DataError: there is no such image, or it cannot be decoded.
        ModelError: the model has no PTA head.
        RunError: there is no checkpoint, the folder of ``out`` does not exist, or ``out`` is a file that is not a heat map.
    """
    cfg, path = read_run(checkpoint, overrides)
    if not is_pretraining(cfg):
        raise RunError(f"checkpoint={checkpoint}: a run with task={cfg.task} draws no heat maps; name {pretrained_run_of(cfg)}")
    if not cfg.pta.enabled:
        raise ModelError(f"checkpoint={checkpoint}: the run had pta.enabled=false, so the model has no PTA head and draws no heat maps")
    if not image.is_file():
        raise DataError(f"image={image}: there is no such image. {nearest_path(image)}")
    if out is not None and not out.parent.is_dir():
        raise RunError(f"out={out}: the folder {out.parent} does not exist; make it, or choose another")
    if out is not None and out.exists() and not _is_heat_map(out):
        raise RunError(f"out={out}: exists, and was not written by timix-evaluate; choose another name, or remove it")
    try:
        photo = open_image(image.read_bytes(), max_image_px=cfg.data.max_image_px)
    except DataError as error:
        raise DataError(f"image={image}: {error}") from error
    model, step = load_model(cfg, path)
    model.eval()
    pixels, crop = centre_crop(photo, model.image_size_px)
    tokens = model.tokenizer([cfg.data.phrase_template.replace("{}", text)])
    probabilities = model.patch_scores(pixels[None], tokens)[0].float().sigmoid()
    if out is None:
        folder = path.parent.parent / FOLDER
        folder.mkdir(exist_ok=True)
        out = folder / f"{image.stem}-{re.sub(r'[^a-z0-9]+', '-', text.lower()).strip('-')[:60] or 'text'}.png"
    with atomic_path(out) as temporary:
        heat_picture(pixels.permute(1, 2, 0).numpy(), probabilities.numpy()).save(temporary, "PNG", pnginfo=_mark())
    return DrawnHeatMap(out, path, step, probabilities, crop)


def _mark() -> PngInfo:
    mark = PngInfo()
    mark.add_text(*MARK)
    return mark


def _is_heat_map(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.info.get(MARK[0]) == MARK[1]
    except OSError:
        return False
