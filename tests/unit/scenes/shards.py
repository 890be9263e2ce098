"""Scenes for tests, written with few samples and read with the standard library alone."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from timix_pl.scenes import make_scenes

PARAMETERS = {
    "num_train": 600,
    "num_regions": 60,
    "num_val": 60,
    "num_zero_shot": 100,
    "image_size_px": 64,
    "misaligned_frac": 0.4,
    "seed": 3,
}
FEW = {"num_train": 8, "num_regions": 4, "num_val": 4, "num_zero_shot": 4}
SPLITS = ("train", "regions", "val", "zero_shot")


def make(folder: Path, **changes) -> Path:
    make_scenes(folder, **(PARAMETERS | changes))
    return folder


def read_split(folder: Path, split: str) -> list[dict]:
    """Each sample's JSON, with ``key``, ``text`` and ``image`` (an array H W 3) added."""
    samples: dict[str, dict] = {}
    for path in sorted((folder / split).glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, ext = member.name.split(".")
                content = tar.extractfile(member).read()
                sample = samples.setdefault(key, {"key": key})
                if ext == "json":
                    sample.update(json.loads(content))
                elif ext == "txt":
                    sample["text"] = content.decode()
                else:
                    sample["image"] = np.asarray(Image.open(io.BytesIO(content)))
    return list(samples.values())


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.tar"))}
