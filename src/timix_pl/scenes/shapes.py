"""The shapes that objects have, as polygons."""

import numpy as np
from jaxtyping import Float

Outline = Float[np.ndarray, "N 2"]


def _arc(radius: float, start_rad: float, stop_rad: float) -> Outline:
    angles = np.linspace(start_rad, stop_rad, 40)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _regular(*radii: float, num_corners: int) -> Outline:
    """Corners at equal angles, the first at the top, their distances from the centre going through ``radii`` in turn."""
    angles = np.arange(num_corners) * 2 * np.pi / num_corners - np.pi / 2
    return np.resize(radii, num_corners)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _ring() -> Outline:
    """Round the outside, then back round the inside; the seam between them lies within the ring."""
    return np.concatenate([_arc(1.0, 0, 2 * np.pi), _arc(0.5, 2 * np.pi, 0)])


def _cross() -> Outline:
    arm, end = 0.34, 1.0
    corner = [(arm, -end), (arm, -arm), (end, -arm)]
    quarters = [np.array(corner) @ np.array([[c, s], [-s, c]]) for c, s in [(1, 0), (0, 1), (-1, 0), (0, -1)]]
    return np.concatenate(quarters)


def _to_unit_box(points: Outline) -> Outline:
    """Centre the bounding box on the origin and scale its longer side to 1."""
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - (low + high) / 2) / (high - low).max()


OUTLINES: dict[str, Outline] = {
    name: _to_unit_box(points)
    for name, points in {
        "circle": _arc(1.0, 0, 2 * np.pi),
        "square": np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]),
        "triangle": _regular(1.0, num_corners=3),
        "ring": _ring(),
        "cross": _cross(),
        "star": _regular(1.0, 0.42, num_corners=10),
    }.items()
}


def turned(shape: str, angle_rad: float) -> Outline:
    """The outline of a shape around the origin, turned clockwise; its longer side was 1."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    return OUTLINES[shape] @ np.array([[cos, sin], [-sin, cos]])
