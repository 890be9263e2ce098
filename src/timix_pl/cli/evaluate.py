"""``timix-evaluate``: evaluate a checkpoint. Everything heavy is imported after the arguments are read, so that ``--help`` is quick."""

from collections.abc import Sequence
from pathlib import Path

from timix_pl.cli.arguments import parse, parser
from timix_pl.cli.errors import clean_exit
from timix_pl.core.errors import ConfigError
from timix_pl.core.files import nearest_path

DETAILS = """\
what to evaluate:
  checkpoint=PATH       a run directory (its newest checkpoint is taken) or a .ckpt file in one
  evaluation=TASKS      one or more of retrieval, zero_shot, grounding, carry_over, linear_probe, knn, vqa and
                        captioning, in brackets;
                        without it, what the run's configuration says
  KEY=VALUE             any option of the run, e.g. other data

examples:
  timix-evaluate checkpoint=runs/demo
  timix-evaluate checkpoint=runs/demo/checkpoints/best.ckpt 'evaluation=[retrieval]'
  timix-evaluate checkpoint=runs/demo data.kind=shards data.val_shards=shards/val

The figures are printed beside the level of chance. All options: docs/configuration.md.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with ``arguments`` (of the process, by default)."""
    parsed = parse(parser("timix-evaluate", "Evaluate a model that timix-train has trained.", DETAILS), arguments)
    with clean_exit("timix-evaluate"):
        checkpoint, overrides = _split(parsed.overrides)

        from timix_pl.cli.logs import show_logs
        from timix_pl.config.build import evaluate
        from timix_pl.evaluation.tasks import EvaluationError
        from timix_pl.reports.table import results_table

        show_logs()
        try:
            print(results_table(*evaluate(checkpoint, overrides=overrides)[:2]))
        except EvaluationError as error:
            print(results_table(*error.result[:2]))
            raise


def _split(words: Sequence[str]) -> tuple[Path, list[str]]:
    """The checkpoint, and the overrides of the run's configuration; ``evaluation=`` is short for ``evaluation.tasks=``."""
    checkpoint, overrides = "", []
    for word in words:
        key, _, value = word.partition("=")
        if key == word:
            raise ConfigError([f"{word}: options are written KEY=VALUE; a run directory or a checkpoint is checkpoint={word}"])
        if key == "checkpoint":
            checkpoint = value
        elif key == "evaluation":
            overrides.append(f"evaluation.tasks=[{value.strip('[]')}]")
        else:
            overrides.append(word)
    if not checkpoint:
        raise ConfigError(["checkpoint= is missing: name a run directory or a checkpoint, e.g. checkpoint=runs/demo"])
    if not Path(checkpoint).exists():
        raise ConfigError([f"checkpoint={checkpoint}: there is no such run directory or checkpoint. {nearest_path(Path(checkpoint))}"])
    return Path(checkpoint), overrides
