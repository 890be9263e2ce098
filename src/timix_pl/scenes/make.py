"""Write the embedded data set to disk, as ordinary shards."""

import json
import tempfile
from pathlib import Path

from tqdm import tqdm

from timix_pl.core.errors import ConfigError, DataError
from timix_pl.data.shards.writer import ShardWriter
from timix_pl.scenes.render import encode_jpeg, render
from timix_pl.scenes.samples import draw_sample
from timix_pl.scenes.vocabulary import KINDS

GENERATOR_VERSION = 1
"""Increase it whenever a change makes the same parameters give other scenes."""
MARKER = "scenes.json"
MIN_IMAGE_SIZE_PX = 32
TEMPLATES = ("a {}", "a photo of a {}", "a picture of a {}", "a scene with a {}", "there is a {}", "we see a {}")


def make_scenes(
    folder: Path | str,
    *,
    num_train: int,
    num_regions: int,
    num_val: int,
    num_zero_shot: int,
    image_size_px: int,
    misaligned_frac: float,
    seed: int,
) -> None:
    """Make FOLDER/train, FOLDER/regions, FOLDER/val and FOLDER/zero_shot. If they exist already, do nothing.

    Each scene depends only on the seed, its split and its index, so a larger number of samples extends a split. FOLDER appears only when it
    is complete, so that processes that make it at the same time do not disturb each other.

    Args:
        folder: the folder to write; its parents are created.
        num_train: number of training pairs.
        num_regions: number of images with boxes.
        num_val: number of evaluation pairs, whose captions all match.
        num_zero_shot: number of images of a single object.
        image_size_px: side of the square images, in pixels.
        misaligned_frac: share of the training captions that omit objects or name absent ones, 0 to 1.
        seed: 0 or greater.
    Raises:
        ConfigError: parameters are out of range; the message lists all of them.
        DataError: FOLDER contains other files or scenes made with other parameters, or cannot be created.
    """
    split_sizes = {"train": num_train, "regions": num_regions, "val": num_val, "zero_shot": num_zero_shot}
    parameters = {
        **{f"num_{split}": size for split, size in split_sizes.items()},
        "image_size_px": image_size_px,
        "misaligned_frac": misaligned_frac,
        "seed": seed,
    }
    _check(parameters)
    parameters["generator_version"] = GENERATOR_VERSION

    folder = Path(folder)
    if _is_finished(folder, parameters):
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent)
    except OSError as error:
        raise DataError(f"{folder} cannot be made ({error}). Choose another folder.") from error
    with scratch as scratch_folder:
        partial = Path(scratch_folder) / folder.name
        with tqdm(desc=f"Making scenes in {folder}", total=sum(split_sizes.values()), unit=" scenes", disable=None) as progress:
            for split, size in split_sizes.items():
                _write_split(partial / split, split, size, seed, misaligned_frac, image_size_px, progress)
        _write_json(partial / "zero_shot" / "classes.json", {"classes": [" ".join(kind) for kind in KINDS], "templates": TEMPLATES})
        _write_json(partial / MARKER, parameters)
        try:
            partial.rename(folder)
        except OSError:
            # Another process was faster; its scenes are the same.
            if not _is_finished(folder, parameters):
                raise


def _write_split(folder: Path, split: str, size: int, seed: int, misaligned_frac: float, image_size_px: int, progress: tqdm) -> None:
    with ShardWriter(folder) as writer:
        for index in range(size):
            sample = draw_sample(seed, split, index, misaligned_frac)
            image = encode_jpeg(render(sample.scene, image_size_px))
            writer.write(sample.key, image, "jpg", captions=[sample.caption], regions=sample.regions, extra=sample.extra)
            progress.update()


def _check(parameters: dict) -> None:
    least = {"image_size_px": MIN_IMAGE_SIZE_PX, "seed": 0}
    problems = []
    for name, value in parameters.items():
        if name == "misaligned_frac":
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                problems.append(f"{name}={value}: must be a share from 0 to 1, such as 0.5 for half of the training captions.")
        elif not isinstance(value, int) or value < least.get(name, 1):
            problems.append(f"{name}={value}: must be a whole number, at least {least.get(name, 1)}.")
    if problems:
        raise ConfigError(problems)


def _is_finished(folder: Path, parameters: dict) -> bool:
    """Whether the folder has these scenes; False if it is empty or does not exist.

    Raises:
        DataError: the folder has something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    way_out = "Choose another folder, or remove this one."
    marker = folder / MARKER
    if not marker.is_file():
        raise DataError(f"{folder} exists, but holds no scenes ({MARKER} is missing). {way_out}")
    made = json.loads(marker.read_text())
    if made != parameters:
        differences = [f"{name}={made.get(name)} (asked: {value})" for name, value in parameters.items() if made.get(name) != value]
        raise DataError(f"{folder} holds scenes made with {', '.join(differences)}. {way_out}")
    return True


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
