"""Pixels against what a sample says about them."""

from dataclasses import replace

import numpy as np
import pytest

from timix_pl.scenes.render import render
from timix_pl.scenes.samples import draw_sample

PURE = {
    "red": (255, 0, 0),
    "green": (0, 160, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "purple": (160, 0, 200),
    "cyan": (0, 255, 255),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
}


def scenes_and_objects(num=60):
    scenes = [draw_sample(5, "val", index, 0.0).scene for index in range(num)]
    return [(scene, scene_object) for scene in scenes for scene_object in scene.objects]


def difference(scene, scene_object, size_px):
    """How much the object alone changes each pixel of the empty background."""
    alone = render(replace(scene, objects=(scene_object,)), size_px).astype(int)
    empty = render(replace(scene, objects=()), size_px).astype(int)
    return np.abs(alone - empty).max(axis=2)


@pytest.mark.parametrize("size_px", [64, 150])
def test_boxes_are_tight(size_px):
    """An object alone changes pixels in exactly the rows and columns that its box touches."""
    for scene, scene_object in scenes_and_objects():
        changed = difference(scene, scene_object, size_px) > 0
        rows, columns = changed.any(axis=1).nonzero()[0], changed.any(axis=0).nonzero()[0]
        x0, y0, x1, y1 = np.array(scene_object.region.bbox_xyxy_norm) * size_px
        assert (columns[0], columns[-1] + 1) == (np.floor(x0), np.ceil(x1)), scene_object
        assert (rows[0], rows[-1] + 1) == (np.floor(y0), np.ceil(y1)), scene_object


def test_objects_stand_out_from_the_background():
    for scene, scene_object in scenes_and_objects():
        change = difference(scene, scene_object, 64)
        assert np.median(change[change > 0]) > 40, scene_object


def test_colours_look_as_named():
    for scene, scene_object in scenes_and_objects():
        if scene_object.texture != "plain":
            continue
        inside = difference(scene, scene_object, 64) > 40
        shown = np.median(render(scene, 64)[inside], axis=0)
        nearest = min(PURE, key=lambda name: np.abs(shown - PURE[name]).sum())
        assert nearest == scene_object.colour


def test_textures_vary_the_paint():
    for scene, scene_object in scenes_and_objects():
        inside = difference(scene, scene_object, 128) > 0
        # Brightness, away from the antialiased rim.
        eroded = inside[1:-1, 1:-1] & inside[2:, 1:-1] & inside[:-2, 1:-1] & inside[1:-1, 2:] & inside[1:-1, :-2]
        paint = render(scene, 128).mean(axis=2)[1:-1, 1:-1][eroded]
        assert (np.percentile(paint, 90) - np.percentile(paint, 10) > 30) == (scene_object.texture != "plain"), scene_object


def test_objects_do_not_overlap_and_lie_inside():
    for index in range(60):
        boxes = [o.region.bbox_xyxy_norm for o in draw_sample(5, "val", index, 0.0).scene.objects]
        assert 1 <= len(boxes) <= 4
        for i, (ax0, ay0, ax1, ay1) in enumerate(boxes):
            assert 0 < ax0 < ax1 < 1
            assert 0 < ay0 < ay1 < 1
            for bx0, by0, bx1, by1 in boxes[:i]:
                assert ax1 < bx0 or bx1 < ax0 or ay1 < by0 or by1 < ay0


def test_large_is_larger_than_small():
    sides = {"small": [], "large": []}
    for _, o in scenes_and_objects():
        x0, y0, x1, y1 = o.region.bbox_xyxy_norm
        sides[o.size].append(max(x1 - x0, y1 - y0))
    assert max(sides["small"]) < min(sides["large"])


@pytest.mark.parametrize("size_px", [32, 97, 224])
def test_any_size(size_px):
    image = render(draw_sample(5, "val", 0, 0.0).scene, size_px)
    assert image.shape == (size_px, size_px, 3)
    assert image.dtype == np.uint8
