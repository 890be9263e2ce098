"""``timix-evaluate``: evaluate a checkpoint. Slow imports follow after the arguments are parsed, so that ``--help`` is fast."""

from __future__ import annotations

import logging
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from timix_pl.cli.arguments import parse, parser
from timix_pl.cli.errors import clean_exit
from timix_pl.cli.plugins import plugin_help
from timix_pl.core.choices import EVALUATORS
from timix_pl.core.errors import ConfigError
from timix_pl.core.files import nearest_path
from timix_pl.core.launched import rank_at_start

if TYPE_CHECKING:
    from timix_pl.runs.evaluate import Evaluated, EvaluatedModel

HEAT_MAP = "heat_map"
OPEN_CLIP = "open_clip:"
NEEDED = {"image": "name a photo, e.g. image=dog.jpg", "text": "give a phrase, e.g. 'text=a dog'"}
TAKEN_BY = dict.fromkeys(("image", "text"), f"evaluation={HEAT_MAP}") | {
    "weights": f"checkpoint={OPEN_CLIP}NAME",
    "out": f"evaluation={HEAT_MAP} or checkpoint={OPEN_CLIP}NAME",
}
ON_RANKS = "timix-evaluate works on the ranks that torchrun starts: torchrun --nproc-per-node N $(which timix-evaluate) checkpoint=..."
DETAILS = """\
what to evaluate:
  checkpoint=PATH       a run directory (for its newest checkpoint) or a .ckpt file in one
  checkpoint=open_clip:NAME weights=FILE
                        a model that open_clip can load: the name of its
                        architecture, and a weights file or a pretrained tag;
                        out=DIR writes DIR/evaluation.json
  evaluation=TASKS      one or more of these, in brackets; by default those of the
                        run's configuration:
{evaluations}
  evaluation=heat_map image=FILE text=PHRASE [out=FILE]
                        draw where in a photo the model sees the phrase
  KEY=VALUE             an option of the run, e.g. to evaluate on other data

examples:
  timix-evaluate checkpoint=runs/demo
  timix-evaluate checkpoint=runs/demo/checkpoints/best.ckpt 'evaluation=[retrieval]'
  timix-evaluate checkpoint=runs/demo data.kind=shards data.val_shards=shards/val
  timix-evaluate checkpoint=runs/demo evaluation=heat_map image=dog.jpg 'text=a dog'
  torchrun --nproc-per-node 8 $(which timix-evaluate) checkpoint=runs/mine
  timix-evaluate checkpoint=open_clip:ViT-B-32 weights=vit_b_32.safetensors data.val_shards=shards/val

The results are printed with the level of chance, written to RUN_DIR/evaluate and
shown in RUN_DIR/report.html. All options: docs/configuration.md.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with ``arguments``, by default those of the process."""
    with clean_exit("timix-evaluate"):
        evaluations = textwrap.fill(", ".join(EVALUATORS.names()), 80, initial_indent=24 * " ", subsequent_indent=24 * " ")
        details = DETAILS.format(evaluations=evaluations) + plugin_help(arguments)
        parsed = parse(parser("timix-evaluate", "Evaluate a trained model.", details), arguments)
        checkpoint, photo, overrides = _split(parsed.overrides)

        from timix_pl.cli.logs import show_logs
        from timix_pl.config.compose import recompose
        from timix_pl.config.saved import run_dir_of

        if rank_at_start() == 0:
            show_logs()
        else:
            logging.disable(logging.WARNING)
        if (name := str(checkpoint)).startswith(OPEN_CLIP):
            _evaluate_open_clip(name.removeprefix(OPEN_CLIP), overrides)
            return
        recompose(run_dir_of(checkpoint) / "config.yaml", overrides)  # reports problems before the slow import of torch
        if photo is not None:
            _draw(checkpoint, photo, overrides)
        else:
            _evaluate(checkpoint, overrides)


def _evaluate(checkpoint: Path, overrides: Sequence[str]) -> None:
    from timix_pl.runs.evaluate import evaluate

    _show(evaluate(checkpoint, overrides))


def _evaluate_open_clip(name: str, words: Sequence[str]) -> None:
    from timix_pl.runs.evaluate_open_clip import evaluate_open_clip

    _show(evaluate_open_clip(name, words))


def _show(evaluated: Evaluated | EvaluatedModel) -> None:
    from timix_pl.reports.table import results_table

    if rank_at_start() == 0:
        found = evaluated.result
        print(evaluated.told(), results_table(found.metrics, found.chance, found.descriptions), sep="\n")
        if evaluated.about:
            for line in evaluated.write():
                print(line)
    if evaluated.error:
        raise evaluated.error


def _draw(checkpoint: Path, photo: dict[str, str], overrides: Sequence[str]) -> None:
    from timix_pl.runs.heat_map import draw_heat_map

    out = Path(photo["out"]) if photo["out"] else None
    if rank_at_start() == 0:
        print(draw_heat_map(checkpoint, Path(photo["image"]), photo["text"], out, overrides).told())


def _split(words: Sequence[str]) -> tuple[Path, dict[str, str] | None, list[str]]:
    """Split the words into the checkpoint, the arguments of a heat map (None if none is requested), and overrides of the configuration."""
    from timix_pl.config.compose import tasks_override

    given, overrides = {"checkpoint": "", "image": "", "text": "", "out": "", "weights": ""}, []
    for word in words:
        key, _, value = word.partition("=")
        if key == word:
            raise ConfigError([f"{word}: options are written KEY=VALUE; a run directory or a checkpoint is checkpoint={word}"])
        if key in given:
            given[key] = value
        elif key == "trainer.devices":
            raise ConfigError([f"{word}: {ON_RANKS}"])
        else:
            overrides.append(tasks_override(word, choices=False))
    checkpoint = Path(named := given.pop("checkpoint"))
    if not named:
        raise ConfigError(["checkpoint= is missing: name a run directory or a checkpoint, e.g. checkpoint=runs/demo"])
    is_open_clip = named.startswith(OPEN_CLIP)
    if not is_open_clip and not checkpoint.exists():
        raise ConfigError([f"checkpoint={checkpoint}: there is no such run directory or checkpoint. {nearest_path(checkpoint)}"])
    tasks = [word for word in overrides if word.startswith("evaluation.tasks=")]
    if tasks[-1:] != [f"evaluation.tasks=[{HEAT_MAP}]"]:
        if is_open_clip:
            overrides = [f"{key}={value}" for key in ("weights", "out") if (value := given.pop(key))] + overrides
        problems = [f"{key}={value}: only {TAKEN_BY[key]} takes it; remove it" for key, value in given.items() if value]
        if HEAT_MAP in re.split(r"\W+", "".join(tasks[-1:])):
            problems = [f"{tasks[-1]}: a heat map cannot be combined with evaluations; write evaluation={HEAT_MAP} image=FILE text=PHRASE"]
        if problems:
            raise ConfigError(problems)
        return checkpoint, None, overrides
    if is_open_clip:
        raise ConfigError([f"checkpoint={named}, evaluation={HEAT_MAP}: heat maps need a PTA head, which models of open_clip do not have"])
    if given["weights"]:
        raise ConfigError([f"weights={given['weights']}: only {TAKEN_BY['weights']} takes it; remove it"])
    if problems := [f"{key}= is missing: {meant}" for key, meant in NEEDED.items() if not given[key].strip()]:
        raise ConfigError(problems)
    return checkpoint, given, [word for word in overrides if word not in tasks]


if __name__ == "__main__":
    main()
