"""The model card: what a model was trained on, how good it is, and how it is loaded."""

from typing import NamedTuple

from timix_pl.export.writing import Written


class RunFacts(NamedTuple):
    """What a run tells of its model. ``settings`` are configuration keys and values; ``evaluated_step`` is that of the metrics."""

    name: str
    step: int
    num_samples: int
    settings: dict[str, str]
    metrics: dict[str, float]
    chance: dict[str, float]
    evaluated_step: int | None


def model_card(facts: RunFacts, written: Written, version: str) -> str:
    """A README.md in Hugging Face's form. The licence is the owner's to choose."""
    tags = ["clip", "vision-language", "timix", *(["onnx"] if written.library_name == "onnx" else [])]
    lines = [
        "---",
        "license: unknown # yours to choose: https://huggingface.co/docs/hub/repositories-licenses",
        f"library_name: {written.library_name}",
        "pipeline_tag: zero-shot-image-classification",
        "tags:",
        *(f"- {tag}" for tag in tags),
        "---",
        "",
        f"# {facts.name}",
        "",
        f"A dual encoder of images and texts, trained with [TiMix](https://arxiv.org/abs/2312.08846) by timix-pl {version}: "
        f"{facts.step:,} steps, {facts.num_samples:,} image-text pairs seen.",
        "",
        "## How to load it",
        "",
        "```python",
        written.usage.strip(),
        "```",
        "",
        *(f"{note}\n" for note in written.notes),
        "## Training",
        "",
        "| option | value |",
        "|---|---|",
        *(f"| `{key}` | {value} |" for key, value in facts.settings.items()),
        "",
        "## Results",
        "",
        *_results(facts),
    ]
    return "\n".join(lines)


def _results(facts: RunFacts) -> list[str]:
    if not facts.metrics:
        return ["The run was not evaluated.", ""]
    when = "" if facts.evaluated_step == facts.step else f" The weights are those of step {facts.step:,}."
    rows = [f"| `{name}` | {value:.4g} | {_chance(facts.chance.get(name))} |" for name, value in facts.metrics.items()]
    return [
        f"After step {facts.evaluated_step:,}, on the evaluation data above.{when}",
        "",
        "| metric | result | chance |",
        "|---|---|---|",
        *rows,
        "",
    ]


def _chance(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
