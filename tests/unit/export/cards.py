"""The code of model cards, run as a reader would run it."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.commands import REPOSITORY
from tests.tiny import random_pixels
from timix_pl.export.trained_model import TrainedModel


def code_of(export: Path) -> str:
    (code,) = re.findall(r"^```python\n(.*?)^```", (export / "README.md").read_text(), re.M | re.S)
    return code


def shown_by_the_cards(folder: Path, formats: Sequence[str]) -> dict[str, list[float]]:
    """Of exports that are called as their format: features and logits of ``photo.jpg``, which this function writes.

    The code of all cards runs in one process, because its imports take longer than the code does. Only that of safetensors finds timix.
    """
    Image.fromarray(random_pixels(32, 32, seed=0)).save(folder / "photo.jpg", quality=100, subsampling=0)
    program = "import sys\n"
    for format in formats:
        program += "sys.modules.pop('timix_pl', None)\n" if format == "safetensors" else "sys.modules['timix_pl'] = None\n"
        show = f"print({{{format!r}: [round(float(x), 4) for x in [*image_features[0], *text_features[1], *logits[0]]]}})"
        program += f"exec({code_of(folder / format) + show!r}, {{}})\n"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src")}
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {format: values for line in done.stdout.splitlines() for format, values in yaml.safe_load(line).items()}


def assert_of_the_model(shown: list[float], model: TrainedModel, folder: Path) -> None:
    image_features, text_features = model.encode_image(Image.open(folder / "photo.jpg")), model.encode_text(["a dog", "a cat"])
    logits = model.logit_scale * image_features @ text_features.T + model.logit_bias
    expected = [*image_features[0].tolist(), *text_features[1].tolist(), *logits[0].tolist()]
    assert shown == pytest.approx(expected, abs=2e-4)
