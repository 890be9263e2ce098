"""Render scenes to pixels. Images are (3 H W) until the last step, because that is faster in NumPy."""

import io
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from timix_pl.scenes.scene import Background, Scene, SceneObject
from timix_pl.scenes.vocabulary import COLOURS, Rgb

Field = Float[np.ndarray, "H W"]


class Window(NamedTuple):
    """The rows and columns of the pixels that an object touches."""

    rows: slice
    columns: slice


SUPERSAMPLING = 4
OBJECT_PERIOD = 0.08
BACKGROUND_PERIOD = 0.2
"""Distance between stripes or dots, as a share of the image's side; of objects above, of backgrounds here."""
GRAIN = 5.0
"""Standard deviation of the background's grain, in grey levels."""
JPEG_QUALITY = 95

PATTERNS: dict[str, Callable[[Field, Field], Field]] = {
    "plain": lambda u, v: np.zeros_like(u),
    "striped": lambda u, v: 2 * u - 0.1,
    "dotted": lambda u, v: 2 * (u + v) - 1,
    "checked": lambda u, v: 0.5 + 2 * u * v,
}
"""From two crossing waves (-1 to 1) to the share of the second colour, clipped to 0 to 1 afterwards."""


def render(scene: Scene, size_px: int) -> UInt8[np.ndarray, "H W 3"]:
    """The scene as a square RGB image, antialiased."""
    canvas = _render_background(scene.background, size_px)
    for scene_object in scene.objects:
        window = _window(scene_object, size_px)
        below = canvas[:, *window]
        below += _render_cover(scene_object, size_px, window) * (_render_paint(scene_object, size_px, window) - below)
    return np.ascontiguousarray(canvas.round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def encode_jpeg(image: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """The image at high quality, colours not subsampled."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _window(scene_object: SceneObject, size_px: int) -> Window:
    x0, y0, x1, y1 = (side * size_px for side in scene_object.region.bbox_xyxy_norm)
    return Window(slice(math.floor(y0), math.ceil(y1)), slice(math.floor(x0), math.ceil(x1)))


def _render_cover(scene_object: SceneObject, size_px: int, window: Window) -> Field:
    """The share of each pixel that the object covers, 0 to 1."""
    rows, columns = window
    mask = Image.new("L", ((columns.stop - columns.start) * SUPERSAMPLING, (rows.stop - rows.start) * SUPERSAMPLING))
    points = (scene_object.outline * size_px - (columns.start, rows.start)) * SUPERSAMPLING
    ImageDraw.Draw(mask).polygon(points.ravel().tolist(), fill=255)
    return np.asarray(mask.reduce(SUPERSAMPLING), dtype=np.float32) / 255


def _render_paint(scene_object: SceneObject, size_px: int, window: Window) -> Float[np.ndarray, "3 H W"]:
    """The object's colour and the pattern on it, over the whole window."""
    pattern = _pattern(scene_object.texture, scene_object.texture_angle_rad, OBJECT_PERIOD * size_px, window)
    return _blend(*COLOURS[scene_object.colour], pattern)


def _render_background(background: Background, size_px: int) -> Float[np.ndarray, "3 H W"]:
    rng = np.random.default_rng(background.noise_seed)
    if background.texture == "cloudy":
        clouds = Image.fromarray(rng.random((6, 6), dtype=np.float32))
        pattern = np.asarray(clouds.resize((size_px, size_px), Image.Resampling.BICUBIC))
    else:
        everywhere = Window(slice(0, size_px), slice(0, size_px))
        pattern = _pattern(background.texture, background.texture_angle_rad, BACKGROUND_PERIOD * size_px, everywhere)
    return _blend(*background.colours, pattern) + GRAIN * rng.standard_normal((size_px, size_px), dtype=np.float32)


def _pattern(texture: str, angle_rad: float, period_px: float, window: Window) -> Field:
    """0 for the first colour, 1 for the second, soft in between."""
    turns = 2 * math.pi / period_px
    cos, sin = turns * math.cos(angle_rad), turns * math.sin(angle_rad)
    y = np.arange(window.rows.start, window.rows.stop, dtype=np.float32)[:, None]
    x = np.arange(window.columns.start, window.columns.stop, dtype=np.float32)
    return PATTERNS[texture](np.cos(x * cos + y * sin), np.cos(y * cos - x * sin)).clip(0, 1)


def _blend(first: Rgb, second: Rgb, share: Field) -> Float[np.ndarray, "3 H W"]:
    a, b = (np.array(colour, dtype=np.float32)[:, None, None] for colour in (first, second))
    return a + share * (b - a)
