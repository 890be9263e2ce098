"""Shards with questions that only the image answers: plain pictures, and what colour they have."""

from pathlib import Path

import numpy as np

from tests.tiny import encoded_image
from timix_pl.data.shards.writer import ShardWriter

COLORS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220), "yellow": (230, 220, 40)}


def question(number: int, *, choices: bool = True, people: int = 1) -> dict:
    """What colour picture ``number`` has; the right answer and, of several people, also a wrong one by one of them."""
    names = list(COLORS)
    right, other = names[number % 4], names[(number + 1) % 4]
    answers = [right.title()] * (people - 1) + [other] if people > 1 else [right]
    found = {"question": "what color is it?", "answers": answers, "type": "what"}
    return found | ({"multiple_choices": [name for name in names if name != right]} if choices else {})


def place(number: int) -> dict:
    """A second question of every third picture, of another type, whose answer is the same for all."""
    return {"question": "where is it?", "answers": ["Nowhere."], "multiple_choices": ["At sea.", "In town."], "type": "where"}


def write_question_shards(folder: Path, num_samples: int, **form) -> Path:
    """Pictures q0, q1, ... of 40 x 60 pixels, with one or two questions each."""
    with ShardWriter(folder, samples_per_shard=8) as writer:
        for number in range(num_samples):
            shade = np.random.default_rng(number).integers(-20, 20, (40, 60, 3))
            pixels = np.clip(np.array(list(COLORS.values())[number % 4]) + shade, 0, 255).astype(np.uint8)
            asked = [question(number, **form), *([place(number)] if number % 3 == 0 else [])]
            writer.write(f"q{number}", encoded_image(pixels, "PNG"), "png", extra={"questions": asked})
    return folder
