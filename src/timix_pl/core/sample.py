"""A sample as a shard holds it. Nothing here imports torch, so that the layouts of ``timix-data`` are quick to import."""

from dataclasses import dataclass, field

MAX_EDGE = 2.0
"""An annotator's box may reach over the image's edge. A box that reaches farther than this was written in pixels."""


@dataclass(frozen=True)
class Region:
    """A phrase and its box: x0, y0, x1, y1 as shares of the image's width and height, 0 to 1."""

    phrase: str
    bbox_xyxy_norm: tuple[float, float, float, float]


@dataclass(frozen=True)
class Sample:
    """One sample as it lies in a shard: the encoded image and everything that its JSON says.

    ``extra`` holds the JSON's other fields (source, label, what was done to a scene).
    """

    key: str
    image: bytes
    image_ext: str
    captions: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    extra: dict = field(default_factory=dict)
    shard: str = ""
