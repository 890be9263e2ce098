"""Convert boxes from published formats to shares of the image."""

import math
from collections.abc import Sequence

from timix_pl.core.sample import MAX_EDGE

Box = tuple[float, float, float, float]


def xywh_px_to_xyxy_norm(xywh_px: Sequence[float], width_px: float, height_px: float) -> Box:
    """Convert a corner and side lengths in pixels to two corners in shares of the image."""
    x, y, w, h = xywh_px
    return x / width_px, y / height_px, (x + w) / width_px, (y + h) / height_px


def clip_box(xyxy_norm: Box) -> Box | None:
    """The part of a box inside the image, rounded to 6 digits. None if nothing is left, or if the box must be in pixels."""
    if max(xyxy_norm) > MAX_EDGE:
        return None
    x0, y0, x1, y1 = (round(min(max(v, 0.0), 1.0), 6) if math.isfinite(v) else math.nan for v in xyxy_norm)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None
