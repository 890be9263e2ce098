"""Class names and caption templates of zero-shot classification: from files, from beside the images, or ImageNet's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from timix_pl.core.errors import DataError
from timix_pl.data.sets.evaluation_set import EvaluationSet
from timix_pl.data.sets.image_folder import ImageFolder

BESIDE = "classes.json"
FORM = '{"classes": [...], "templates": ["a photo of a {}", ...]}'


def class_names(
    dataset: EvaluationSet | ImageFolder, classes: str | None = None, templates: str | None = None
) -> tuple[list[str], list[str]]:
    """The classes' names in the order of their numbers, and the templates.

    Args:
        classes: a .json or .txt file, or ``imagenet``; None: ``classes.json`` beside the images, or the names of the class folders.
        templates: a .json or .txt file, ``openai_imagenet`` or ``simple``; None: those of the classes' file, or ``simple``.
    Raises:
        DataError: a file is missing or holds something else, or there are not as many names as class folders.
    """
    names, own_templates = _classes(dataset, classes)
    if isinstance(dataset, ImageFolder) and len(names) != len(dataset.class_folders):
        raise DataError(
            f"{_origin(dataset, classes)} names {len(names)} classes, but `dataset={dataset.folder}` has "
            f"{len(dataset.class_folders)} class folders. Names go to the folders in sorted order: give as many."
        )
    return names, _templates(templates) or own_templates or _ready_made("simple")


def _classes(dataset: EvaluationSet | ImageFolder, given: str | None) -> tuple[list[str], list[str]]:
    origin = _origin(dataset, given)
    if given == "imagenet":
        import open_clip

        return list(open_clip.IMAGENET_CLASSNAMES), []
    if given is not None:
        return _read(Path(given).read_bytes, given, origin, "classes")
    if isinstance(dataset, EvaluationSet):
        return _read(lambda: dataset.sources[0].tars[0].read_beside(BESIDE), BESIDE, origin, "classes")
    if (dataset.folder / BESIDE).exists():
        return _read((dataset.folder / BESIDE).read_bytes, BESIDE, origin, "classes")
    return dataset.class_folders, []


def _templates(given: str | None) -> list[str]:
    if given is None or given in READY_MADE_TEMPLATES:
        return _ready_made(given) if given else []
    return _read(Path(given).read_bytes, given, f"`templates={given}`", "templates")[1]


READY_MADE_TEMPLATES = {"openai_imagenet": "OPENAI_IMAGENET_TEMPLATES", "simple": "SIMPLE_IMAGENET_TEMPLATES"}
"""By their name in the configuration, their name in open_clip."""


def _ready_made(name: str) -> list[str]:
    import open_clip

    return [template("{}") for template in getattr(open_clip, READY_MADE_TEMPLATES[name])]


def _origin(dataset: EvaluationSet | ImageFolder, classes: str | None) -> str:
    if classes is not None:
        return f"`classes={classes}`"
    beside = dataset.sources[0].tars[0].name if isinstance(dataset, EvaluationSet) else "the class folders"
    return f"`dataset`: {BESIDE} beside {beside}"


def _read(read: Callable[[], bytes], name: str, origin: str, wanted: str) -> tuple[list[str], list[str]]:
    """Classes and templates of a file, of which ``wanted`` must be there."""
    try:
        text = read().decode("utf-8")
        content = json.loads(text) if name.endswith(".json") else text.strip().splitlines()
        found: dict[str, Any] = content if isinstance(content, dict) else {wanted: content}
        lists = {key: _texts(found.get(key, [])) for key in ("classes", "templates")}
        if not lists[wanted]:
            raise ValueError(f"there are no {wanted} in it")
    except (OSError, ValueError) as error:
        form = f"{FORM}, or a list of {wanted}" if name.endswith(".json") else f"one of the {wanted} in each line"
        raise DataError(f"{origin} must hold {form}, but: {error}. Repair it, or set `{wanted}`.") from error
    return lists["classes"], lists["templates"]


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
        raise ValueError("a list of texts that are not empty is needed")
    return [value.strip() for value in values]
