"""Results: their names, and the files that they become."""

import json
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from timix_pl.core.files import atomic_path
from timix_pl.core.types import EvaluationResult


def named(name: str, metrics: dict[str, float], chance: dict[str, float], examples: list[dict[str, Any]] | None = None) -> EvaluationResult:
    """A result whose metrics' names begin with the evaluation's name."""
    return EvaluationResult(
        {f"{name}/{key}": value for key, value in metrics.items()},
        {f"{name}/{key}": value for key, value in chance.items()},
        {name: examples} if examples else {},
    )


def write_result(folder: Path, result: EvaluationResult, **about: Any) -> None:
    """``evaluation.json`` and, of each evaluation that has examples, ``examples/NAME.json`` with its images as PNG files beside it.

    Args:
        about: what else ``evaluation.json`` tells, such as the step.
    """
    for name, examples in result.examples.items():
        (folder / "examples").mkdir(parents=True, exist_ok=True)
        _write_json(folder / "examples" / f"{name}.json", _with_files(examples, folder / "examples", name))
    _write_json(folder / "evaluation.json", about | {"metrics": result.metrics, "chance": result.chance})


def _write_json(path: Path, content: Any) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _with_files(value: Any, folder: Path, name: str) -> Any:
    """The value with the name of a PNG file in place of each image."""
    if isinstance(value, Tensor):
        path = folder / f"{name}.png"
        with atomic_path(path) as temporary:
            Image.fromarray(value.permute(1, 2, 0).cpu().numpy()).save(temporary, "PNG")
        return path.name
    if isinstance(value, dict):
        return {key: _with_files(part, folder, f"{name}-{key}") for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_with_files(part, folder, f"{name}-{number}") for number, part in enumerate(value)]
    return value
