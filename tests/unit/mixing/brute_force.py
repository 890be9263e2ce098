"""TiMix by loops over windows and pixels, in NumPy, from the method's description alone."""

import numpy as np
import torch


def distinct_images(num_images, height, width, *, channels=3):
    """No two pixel values alike, so that a changed pixel is always seen."""
    return torch.arange(num_images * channels * height * width, dtype=torch.float64).view(num_images, channels, height, width)


def all_windows(height, width, side):
    return [(y, x) for y in range(height - side + 1) for x in range(width - side + 1)]


def window(array, corner, side):
    y, x = corner
    return array[..., y : y + side, x : x + side]


def best_windows(scores, rows, partners, side):
    """Target and source corners of each pair: least described at home, best described in the partner. ``scores``: images x h x w."""
    targets, sources = [], []
    for row, partner in zip(rows, partners, strict=True):
        normalised = [(scores[i] - scores[i].mean()) / np.sqrt(scores[i].var() + 1e-6) for i in (row, partner)]
        corners = all_windows(*scores.shape[1:], side)
        targets.append(min(corners, key=lambda corner: window(normalised[0], corner, side).sum()))
        sources.append(max(corners, key=lambda corner: window(normalised[1], corner, side).sum()))
    return targets, sources


def relevance_lam(logits, rows, partners, targets, sources, side):
    """Kept own relevance over kept plus pasted relevance."""
    relevance = 1 / (1 + np.exp(-logits))
    lam = []
    for row, partner, target, source in zip(rows, partners, targets, sources, strict=True):
        kept = relevance[row].sum() - window(relevance[row], target, side).sum()
        pasted = window(relevance[partner], source, side).sum()
        lam.append(kept / (kept + pasted))
    return np.array(lam)


def pasted(images, rows, partners, targets, sources, side, patch):
    """Pixel by pixel. ``patch``: height and width of a patch in pixels."""
    mixed = images[rows].copy()
    for number, (partner, target, source) in enumerate(zip(partners, targets, sources, strict=True)):
        for dy in range(side * patch[0]):
            for dx in range(side * patch[1]):
                ty, tx = target[0] * patch[0] + dy, target[1] * patch[1] + dx
                sy, sx = source[0] * patch[0] + dy, source[1] * patch[1] + dx
                mixed[number, :, ty, tx] = images[partner, :, sy, sx]
    return mixed
