"""The words of the embedded data set, and their appearance."""

from timix_pl.scenes.shapes import OUTLINES

Rgb = tuple[float, float, float]
Kind = tuple[str, str]

COLOURS: dict[str, tuple[Rgb, Rgb]] = {
    "red": ((214, 34, 34), (246, 166, 160)),
    "green": ((28, 150, 52), (164, 226, 168)),
    "blue": ((36, 66, 216), (164, 184, 255)),
    "yellow": ((246, 214, 36), (116, 92, 0)),
    "purple": ((150, 46, 186), (70, 8, 92)),
    "cyan": ((46, 208, 224), (8, 90, 108)),
    "white": ((252, 252, 252), (196, 196, 196)),
    "black": ((14, 14, 14), (64, 64, 64)),
}
"""RGB of each colour, and of the stripes and dots on it."""

SIZES: dict[str, tuple[float, float]] = {"small": (0.21, 0.25), "large": (0.34, 0.4)}
"""Range of an object's side before rotation, as a share of the image's side."""

TEXTURES = ("plain", "striped", "dotted")

KINDS: tuple[Kind, ...] = tuple((colour, shape) for colour in COLOURS for shape in OUTLINES)
"""All pairs of colour and shape. No two objects of a scene share one, so that colour and shape identify an object."""
