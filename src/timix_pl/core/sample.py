"""A sample as it is stored in a shard. Nothing here imports torch, so that ``timix-data`` starts fast."""

from dataclasses import dataclass, field

MAX_EDGE = 2.0
"""Largest accepted coordinate of a box. Boxes may extend a little beyond the image; one that extends beyond this was written in pixels."""


@dataclass(frozen=True)
class Region:
    """A phrase and its box: x0, y0, x1, y1 as shares of the image's width and height, 0 to 1."""

    phrase: str
    bbox_xyxy_norm: tuple[float, float, float, float]


@dataclass(frozen=True)
class Sample:
    """One sample of a shard: the encoded image, and the fields of its JSON.

    ``extra`` has the fields that are not listed here, such as the source, the label, or how a caption was changed.
    """

    key: str
    image: bytes
    image_ext: str
    captions: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    extra: dict = field(default_factory=dict)
    shard: str = ""
