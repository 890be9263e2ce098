"""``timix-export``: write a trained model in formats that other programs load. Slow imports follow after the arguments are parsed."""

from collections.abc import Sequence
from pathlib import Path

from timix_pl.cli.arguments import parse, parser
from timix_pl.cli.errors import clean_exit
from timix_pl.cli.plugins import plugin_help
from timix_pl.core.choices import EXPORT_FORMATS
from timix_pl.core.errors import ConfigError
from timix_pl.core.files import nearest_path
from timix_pl.core.plugins import load_plugins
from timix_pl.core.words import listed

DETAILS = """\
what to export:
  checkpoint=PATH       a run directory (for its newest checkpoint), or a checkpoint in one, e.g. best.ckpt
  format=FORMAT         one of these; or several in brackets, each written to its own folder in out:
{formats}
  weights=WEIGHTS       last (default), or ema: the moving average of the weights (optim.ema)
  out=DIR               a new or empty folder, or an earlier export, which is replaced
  plugins=[MODULE]      Python modules that add formats

examples:
  timix-export checkpoint=runs/demo format=open_clip out=exports/demo
  timix-export checkpoint=runs/demo/checkpoints/best.ckpt 'format=[open_clip,safetensors,onnx]' out=exports/best

Each folder has a model card (README.md) with the data, settings and results of the run and the code that loads the model. The features of
each export are compared with the model's before it is written; it is written completely or not at all. More: docs/exporting.md.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with ``arguments``, by default those of the process."""
    with clean_exit("timix-export"):
        formats = "\n".join(f"      {name:<17} {EXPORT_FORMATS.about(name)}" for name in EXPORT_FORMATS.names())
        details = DETAILS.format(formats=formats) + plugin_help(arguments)
        parsed = parse(parser("timix-export", "Write a trained model in formats that other programs load.", details), arguments)
        checkpoint, outs, weights = _read(parsed.overrides)

        from timix_pl.cli.logs import show_logs
        from timix_pl.runs.export import export_checkpoint

        show_logs()
        export_checkpoint(checkpoint, outs, weights)


def _read(words: Sequence[str]) -> tuple[Path, dict[str, Path], str]:
    """The checkpoint, a folder for each format, and which weights.

    Raises:
        ConfigError: lists all problems of the words.
    """
    values, found = dict.fromkeys(("checkpoint", "format", "out", "plugins"), "") | {"weights": "last"}, []
    for word in words:
        key, equals, value = word.partition("=")
        if key not in values or not equals:
            found.append(f"{word}: no such option; timix-export takes checkpoint=, format=, weights=, out= and plugins=")
        else:
            values[key] = value
    load_plugins(listed(values["plugins"]))
    formats = listed(values["format"])
    if not formats:
        found.append(f"format= is missing; choose from {', '.join(EXPORT_FORMATS.names())}")
    for name in formats:
        if name not in EXPORT_FORMATS:
            found.append(EXPORT_FORMATS.unknown(name))
    checkpoint, out = Path(values["checkpoint"]), Path(values["out"])
    if not values["checkpoint"]:
        found.append("checkpoint= is missing: name a run directory or a checkpoint, e.g. checkpoint=runs/demo")
    elif not checkpoint.exists():
        found.append(f"checkpoint={checkpoint}: there is no such run directory or checkpoint. {nearest_path(checkpoint)}")
    if values["weights"] not in ("last", "ema"):
        found.append(f"weights={values['weights']}: choose last or ema")
    if not values["out"]:
        found.append("out= is missing: name the folder to write, e.g. out=exports/demo")
    if found:
        raise ConfigError(found)
    return checkpoint, {name: out / name if len(formats) > 1 else out for name in formats}, values["weights"]


if __name__ == "__main__":
    main()
