"""Draw one sample of the embedded data set from seed, split and index."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from timix_pl.core.sample import Region
from timix_pl.scenes.captions import write_caption
from timix_pl.scenes.misalignment import Misalignment, draw_misalignment
from timix_pl.scenes.scene import Scene, draw_kinds, draw_scene
from timix_pl.scenes.vocabulary import KINDS

SPLITS = ("train", "regions", "val", "zero_shot")


@dataclass(frozen=True)
class SceneSample:
    """A scene with its caption and regions. ``extra``: further fields of the sample's JSON."""

    key: str
    scene: Scene
    caption: str
    regions: tuple[Region, ...]
    extra: dict[str, Any]


def draw_sample(seed: int, split: str, index: int, misaligned_frac: float) -> SceneSample:
    """Draw sample ``index`` of a split; the same arguments give the same sample, in any order and process.

    Only the train split has misaligned captions, and it has no regions. A zero-shot sample has one object, whose kind is the class; classes
    take turns.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    label = index % len(KINDS)
    scene = draw_scene(rng, [KINDS[label]] if split == "zero_shot" else draw_kinds(rng))
    misalignment = draw_misalignment(rng, scene.objects, misaligned_frac) if split == "train" else Misalignment()

    regions = tuple(scene_object.region for scene_object in scene.objects)
    named = [region for region in regions if region.phrase not in misalignment.omitted]
    extra: dict[str, Any] = {"scene": scene.to_json(), "misalignment": asdict(misalignment)}
    if split == "zero_shot":
        extra["label"] = label
    return SceneSample(
        key=f"{split}-{index:07d}",
        scene=scene,
        caption=write_caption(rng, named, misalignment.absent),
        regions=() if split == "train" else regions,
        extra=extra,
    )
