"""The content of a scene, and how it is drawn at random. All lengths are shares of the image's side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from timix_pl.core.sample import Region
from timix_pl.scenes.captions import Box, choose, write_phrase
from timix_pl.scenes.shapes import Outline, turned
from timix_pl.scenes.vocabulary import KINDS, SIZES, TEXTURES, Kind, Rgb

NUM_OBJECTS = (1, 1, 2, 2, 2, 3, 3, 3, 4, 4)
"""Numbers of objects of a scene; each entry is equally likely."""
MAX_ANGLE_RAD = 0.25
MARGIN = 0.02
"""Smallest distance between boxes, and between a box and the image's edge."""
MAX_PLACING_ATTEMPTS = 50
BACKGROUND_TEXTURES = ("striped", "dotted", "checked", "cloudy")
MUTED_BRIGHTNESS = (100, 155)


@dataclass(frozen=True)
class SceneObject:
    """One object. ``region``: its tight box, and a phrase that describes only this object; ``outline``: its polygon in the image."""

    colour: str
    shape: str
    size: str
    texture: str
    texture_angle_rad: float
    outline: Outline
    region: Region


@dataclass(frozen=True)
class Background:
    """A pattern between two muted colours, with grain."""

    texture: str
    texture_angle_rad: float
    colours: tuple[Rgb, Rgb]
    noise_seed: int


@dataclass(frozen=True)
class Scene:
    objects: tuple[SceneObject, ...]
    background: Background

    def to_json(self) -> dict:
        """The scene's content for the sample's JSON."""
        attributes = ("colour", "shape", "size", "texture")
        objects = [
            {name: getattr(o, name) for name in attributes} | {"phrase": o.region.phrase, "bbox_xyxy_norm": o.region.bbox_xyxy_norm}
            for o in self.objects
        ]
        return {"objects": objects, "background": self.background.texture}


def draw_kinds(rng: np.random.Generator) -> list[Kind]:
    """Different kinds, one for each object of a scene."""
    return [KINDS[i] for i in rng.choice(len(KINDS), size=choose(rng, NUM_OBJECTS), replace=False)]


def draw_scene(rng: np.random.Generator, kinds: Sequence[Kind]) -> Scene:
    """One object of each kind, in places that do not overlap, on a background."""
    objects: list[SceneObject] = []
    while len(objects) < len(kinds):
        new = _draw_object(rng, kinds[len(objects)], taken=[o.region.bbox_xyxy_norm for o in objects])
        objects = [*objects, new] if new else []
    return Scene(tuple(objects), _draw_background(rng))


def _draw_object(rng: np.random.Generator, kind: Kind, taken: Sequence[Box]) -> SceneObject | None:
    """An object that does not overlap the boxes in ``taken``; None if no place was found."""
    colour, shape = kind
    size, texture = choose(rng, list(SIZES)), choose(rng, TEXTURES)
    outline = turned(shape, angle_rad=rng.uniform(-MAX_ANGLE_RAD, MAX_ANGLE_RAD)) * rng.uniform(*SIZES[size])
    width, height = np.ptp(outline, axis=0).tolist()
    box = _draw_box(rng, width, height, taken)
    if box is None:
        return None
    return SceneObject(
        colour,
        shape,
        size,
        texture,
        texture_angle_rad=rng.uniform(0, np.pi),
        outline=outline - outline.min(axis=0) + box[:2],
        region=Region(write_phrase(rng, colour=colour, shape=shape, size=size, texture=texture), box),
    )


def _draw_box(rng: np.random.Generator, width: float, height: float, taken: Sequence[Box]) -> Box | None:
    for _ in range(MAX_PLACING_ATTEMPTS):
        x0, y0 = rng.uniform(MARGIN, 1 - MARGIN - width), rng.uniform(MARGIN, 1 - MARGIN - height)
        box = (x0, y0, x0 + width, y0 + height)
        if not any(_too_close(box, other) for other in taken):
            return box
    return None


def _too_close(a: Box, b: Box) -> bool:
    return a[0] < b[2] + MARGIN and b[0] < a[2] + MARGIN and a[1] < b[3] + MARGIN and b[1] < a[3] + MARGIN


def _draw_background(rng: np.random.Generator) -> Background:
    colour = rng.uniform(*MUTED_BRIGHTNESS) + rng.uniform(-18, 18, size=3)
    contrast = rng.uniform(12, 36)
    return Background(
        choose(rng, BACKGROUND_TEXTURES),
        texture_angle_rad=rng.uniform(0, np.pi),
        colours=(tuple(colour - contrast / 2), tuple(colour + contrast / 2)),
        noise_seed=int(rng.integers(2**32)),
    )
