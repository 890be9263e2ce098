"""Known noise: captions that omit objects or name absent ones."""

from dataclasses import dataclass

import numpy as np

from timix_pl.scenes.captions import choose, write_phrase
from timix_pl.scenes.scene import NUM_OBJECTS, SceneObject
from timix_pl.scenes.vocabulary import KINDS, SIZES, TEXTURES


@dataclass(frozen=True)
class Misalignment:
    """How a caption is wrong. ``omitted``: phrases of objects that it omits; ``absent``: phrases that describe no object."""

    kind: str = "none"
    omitted: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


def draw_misalignment(rng: np.random.Generator, objects: tuple[SceneObject, ...], misaligned_frac: float) -> Misalignment:
    """Misalign with probability ``misaligned_frac``. The caption still names at least one object.

    Both kinds are equally likely, except that a single object is never omitted, and a scene with the largest number of objects gets no
    absent phrase.
    """
    if rng.random() >= misaligned_frac:
        return Misalignment()
    possible = [kind for kind, fits in (("omitted", len(objects) > 1), ("absent", len(objects) < max(NUM_OBJECTS))) if fits]
    if choose(rng, possible) == "omitted":
        chosen = rng.choice(len(objects), size=rng.integers(1, len(objects)), replace=False)
        return Misalignment("omitted", omitted=tuple(objects[i].region.phrase for i in chosen))
    shown = {(o.colour, o.shape) for o in objects}
    colour, shape = choose(rng, [kind for kind in KINDS if kind not in shown])
    phrase = write_phrase(rng, colour=colour, shape=shape, size=choose(rng, list(SIZES)), texture=choose(rng, TEXTURES))
    return Misalignment("absent", absent=(phrase,))
