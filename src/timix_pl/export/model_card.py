"""The model card: how to load a model, what it was trained on, and its results."""

from typing import NamedTuple

from timix_pl.export.writing import Written


class Result(NamedTuple):
    """One result of an evaluation: metric, value and level of chance as text, the step of the weights, and the data."""

    metric: str
    value: str
    chance: str
    step: int
    data: str


class RunFacts(NamedTuple):
    """The facts about a run for the model card. ``settings``: configuration keys and values; ``num_samples``: pairs seen in training."""

    name: str
    step: int
    num_samples: int
    settings: dict[str, str]
    results: list[Result]


def model_card(facts: RunFacts, written: Written, version: str) -> str:
    """A README.md in Hugging Face's format. The owner chooses the licence."""
    tags = ["clip", "vision-language", "timix", *(["onnx"] if written.library_name == "onnx" else [])]
    lines = [
        "---",
        "license: unknown # choose one: https://huggingface.co/docs/hub/repositories-licenses",
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
    if not facts.results:
        return ["The run was not evaluated.", ""]
    rows = [f"| `{one.metric}` | {one.value} | {one.chance} | {one.step:,} | {one.data} |" for one in facts.results]
    other_weights = any(one.step != facts.step for one in facts.results)
    return [
        *([f"The weights are those of step {facts.step:,}.", ""] if other_weights else []),
        "| metric | result | chance | after step | data |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]
