"""Small images, and shards read with nothing but tarfile and json."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def encode_image(seed, image_format="JPEG", size_px=(40, 20)):
    """Noise of (width, height), encoded."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size_px[1], size_px[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format)
    return buffer.getvalue()


@pytest.fixture
def make_image():
    """Write an image and return its bytes."""

    def make(path, seed=0, image_format="JPEG", size_px=(40, 20)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image(seed, image_format, size_px))
        return path.read_bytes()

    return make


@pytest.fixture
def read_shards():
    """Samples of a shard folder by key: ``image``, ``ext``, ``text`` and the fields of the JSON."""

    def read(folder):
        samples = {}
        for path in sorted(Path(folder).glob("*.tar")):
            with tarfile.open(path) as tar:
                for member in tar:
                    key, ext = member.name.split(".", 1)
                    content = tar.extractfile(member).read()
                    sample = samples.setdefault(key, {"text": None})
                    if ext == "json":
                        sample |= json.loads(content)
                    elif ext == "txt":
                        sample["text"] = content.decode()
                    else:
                        sample |= {"image": content, "ext": ext}
        return samples

    return read


@pytest.fixture
def read_skipped():
    """(key, what, reason) of each line of skipped.jsonl."""

    def read(folder):
        lines = (Path(folder) / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
        return [(line["key"], line["left_out"], line["reason"]) for line in map(json.loads, lines)]

    return read
