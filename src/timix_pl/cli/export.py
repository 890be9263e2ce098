"""``timix-export``: a trained model in forms that others load. Everything heavy is imported after the arguments are read."""

from collections.abc import Sequence
from pathlib import Path

from timix_pl.cli.arguments import parse, parser
from timix_pl.cli.errors import clean_exit
from timix_pl.core.choices import EXPORT_FORMATS
from timix_pl.core.errors import ConfigError
from timix_pl.core.files import nearest_path

DETAILS = """\
options:
  checkpoint=PATH       a run directory (its newest checkpoint is taken), or a checkpoint in one, e.g. best.ckpt
  format=FORMAT         one of these, or several in brackets, each into a folder of its own below out:
      open_clip         open_clip.create_model_and_transforms("local-dir:DIR") loads it
      hf                transformers' CLIPModel and CLIPProcessor load it; of architectures that these can express
      safetensors       timix_pl.load("DIR") loads it, with the PTA head
      onnx              graphs of the towers and the PTA head; needs pip install 'timix-pl[onnx]'
  weights=ema           the moving average of the weights (optim.ema), and not the last ones (weights=last)
  out=DIR               where to; a new or empty folder, or an earlier export, which is replaced

examples:
  timix-export checkpoint=runs/demo format=open_clip out=exports/demo
  timix-export checkpoint=runs/demo/checkpoints/best.ckpt 'format=[open_clip,safetensors,onnx]' out=exports/best

Each folder holds a model card, README.md, with the run's data, settings and results, and the code that loads it. An export appears whole
or not at all, and its features have been compared with the model's. More: docs/exporting.md.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with ``arguments`` (of the process, by default)."""
    parsed = parse(parser("timix-export", "Write a trained model in forms that others load.", DETAILS), arguments)
    with clean_exit("timix-export"):
        checkpoint, outs, weights = _read(parsed.overrides)

        from timix_pl.cli.logs import show_logs
        from timix_pl.runs.export import export_checkpoint

        show_logs()
        export_checkpoint(checkpoint, outs, weights)


def _read(words: Sequence[str]) -> tuple[Path, dict[str, Path], str]:
    """The checkpoint, a folder for each format, and which weights; all that is wrong with the words at once."""
    values, found = dict.fromkeys(("checkpoint", "format", "out"), "") | {"weights": "last"}, []
    for word in words:
        key, equals, value = word.partition("=")
        if key not in values or not equals:
            found.append(f"{word}: no such option; timix-export takes checkpoint=, format=, weights= and out=")
        else:
            values[key] = value
    formats = [name.strip() for name in values["format"].strip("[]").split(",")]
    for name in formats:
        if not name:
            found.append(f"format= is missing; choose from {', '.join(EXPORT_FORMATS.names())}")
        elif name not in EXPORT_FORMATS:
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
