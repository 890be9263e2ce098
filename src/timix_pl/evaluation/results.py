"""Results: their names, and the files that they become."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from timix_pl.core.files import atomic_path
from timix_pl.core.metric import Metric, describe
from timix_pl.core.types import EvaluationResult
from timix_pl.evaluation.evaluator import Evaluator


def named(
    evaluator: Evaluator, metrics: Mapping[str, float], chance: Mapping[str, float], examples: list[dict[str, Any]] | None = None
) -> EvaluationResult:
    """A result whose metrics' names begin with the evaluator's name, with the descriptions that the evaluator declares."""
    name = evaluator.choice
    declared = {key: declared_metric(evaluator, key) for key in metrics}
    return EvaluationResult(
        {f"{name}/{key}": value for key, value in metrics.items()},
        {f"{name}/{key}": value for key, value in chance.items()},
        {name: examples} if examples else {},
        {f"{name}/{key}": metric for key, metric in declared.items() if metric is not None},
    )


def declared_metric(evaluator: Evaluator | type[Evaluator], key: str) -> Metric | None:
    """What an evaluator declares of one of its metrics, in ``metrics``, with its ``title`` as the heading.

    Args:
        key: the metric's name without the evaluator's.
    Returns:
        None where it declares nothing.
    """
    metric = describe(evaluator.metrics, key)
    return None if metric is None else replace(metric, group=evaluator.title)


def write_result(folder: Path, result: EvaluationResult, **about: Any) -> None:
    """``evaluation.json`` and, of each evaluation that has examples, ``examples/NAME.json`` with its images as PNG files beside it.

    Examples that lie there of an evaluation without metrics in ``result`` are removed.

    Args:
        about: what else ``evaluation.json`` tells, such as the step.
    """
    present = {metric.split("/")[0] for metric in result.metrics}
    for path in (folder / "examples").glob("*.json"):
        if path.stem in result.examples or path.stem not in present:
            _remove_examples(path)
    for name, examples in result.examples.items():
        (folder / "examples").mkdir(parents=True, exist_ok=True)
        _write_json(folder / "examples" / f"{name}.json", _with_files(examples, folder / "examples", name))
    descriptions = {name: asdict(metric) for name, metric in result.descriptions.items()}
    _write_json(folder / "evaluation.json", about | {"metrics": result.metrics, "chance": result.chance, "descriptions": descriptions})


def _remove_examples(path: Path) -> None:
    path.unlink()
    for picture in path.parent.glob(f"{path.stem}-[0-9]*.png"):
        picture.unlink()


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
