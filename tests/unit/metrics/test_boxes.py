import numpy as np
import torch

from timix_pl.metrics.boxes import all_boxes, box_iou, centres_inside, region_boxes

GRID = (3, 5)


def random_boxes(num, seed):
    corners = np.sort(np.random.default_rng(seed).random((num, 2, 2)), axis=1)
    return corners.reshape(num, 4)


def test_centres_inside_equals_a_loop_over_patches():
    boxes = random_boxes(40, seed=0)
    inside = centres_inside(torch.tensor(boxes), GRID)
    for r, (x0, y0, x1, y1) in enumerate(boxes):
        for row in range(3):
            for column in range(5):
                x, y = (column + 0.5) / 5, (row + 0.5) / 3
                assert inside[r, row, column] == (x0 <= x <= x1 and y0 <= y <= y1)


def test_iou_equals_counting_cells():
    draw = np.random.default_rng(0)
    top_left, sides = draw.integers(0, 50, (2, 30, 2)), draw.integers(1, 50, (2, 30, 2))
    first, second = np.concatenate([top_left, top_left + sides], axis=2) / 100
    for a, b, iou in zip(first, second, box_iou(torch.tensor(first), torch.tensor(second)), strict=True):
        drawn = []
        for x0, y0, x1, y1 in (a, b):
            canvas = np.zeros((100, 100), bool)
            canvas[round(y0 * 100) : round(y1 * 100), round(x0 * 100) : round(x1 * 100)] = True
            drawn.append(canvas)
        both, either = (drawn[0] & drawn[1]).sum(), (drawn[0] | drawn[1]).sum()
        np.testing.assert_allclose(iou, both / either)


def test_region_boxes_enclose_exactly_the_patches():
    regions = torch.zeros(2, *GRID, dtype=torch.bool)
    regions[0, 1, 2] = True
    regions[1, 0, 1] = regions[1, 2, 3] = True
    np.testing.assert_allclose(region_boxes(regions), [[2 / 5, 1 / 3, 3 / 5, 2 / 3], [1 / 5, 0, 4 / 5, 1]])


def test_all_boxes_are_the_distinct_boxes_of_whole_patches():
    expected = {
        (x0 / 5, y0 / 3, x1 / 5, y1 / 3) for x0 in range(5) for x1 in range(x0 + 1, 6) for y0 in range(3) for y1 in range(y0 + 1, 4)
    }
    boxes = [tuple(box) for box in all_boxes(GRID).tolist()]
    assert len(boxes) == len(expected) and set(boxes) == expected
