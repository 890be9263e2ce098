"""The command ``timix-data``: convert published collections to shards that timix-pl trains on.

Slow imports follow after the arguments are parsed.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.layout import add_arguments, read, summary
from timix_pl import __version__
from timix_pl.core.choices import LAYOUTS
from timix_pl.core.errors import TimixError
from timix_pl.core.plugins import load_plugins
from timix_pl.core.words import nearest

DESCRIPTION = """\
Convert images with captions or boxes to tar shards that timix-train reads.

Each command reads one layout in which collections are published. JPEG, PNG and WebP
images are copied unchanged. What cannot be used is counted, and listed in
OUT/skipped.jsonl.
"""

EPILOG = """\
examples:
  timix-data folder my_photos --out shards/train
  timix-data flickr --images Images --captions Flickr8k.token.txt \\
      --split Flickr_8k.trainImages.txt --out shards/train
  timix-data coco --images train2017 --instances instances_train2017.json \\
      --part train --out shards/regions
  timix-data index shards_from_elsewhere
  timix-data inspect shards/train --html train.html

'timix-data COMMAND --help' says what a command reads. Then train:
  timix-train data.train_shards=shards/train data.region_shards=shards/regions trainer.max_epochs=10
"""

INDEX_DESCRIPTION = """\
Write an index beside each tar, and manifest.json into each given folder. Training
would index shards without an index one after another; this command does it in parallel,
and reports problems. Tars with a valid index are not scanned again, so an interrupted
run continues where it stopped.
"""

INSPECT_DESCRIPTION = """\
Print the contents of shards: samples, formats, sizes, captions, regions and problems.
Counts are of all shards; the other figures are of some samples, spread evenly over them.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0, or 2 when the input cannot be used.
    """
    try:
        args = parse(sys.argv[1:] if arguments is None else arguments)
    except TimixError as error:  # of a plugin
        print(f"timix-data: {error}", file=sys.stderr)
        return 2
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names in tars and folders need not be UTF-8
    try:
        args.run(args)
    except (TimixError, OSError) as error:
        print(f"timix-data: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"timix-data: stopped before the end; {args.go_on}.", file=sys.stderr)
        return 130
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Import the plugins that the arguments name, then parse the arguments. ``run`` of the result is the function that does the work.

    Raises:
        ConfigError: a plugin cannot be imported.
    """
    plugins = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    plugins.add_argument("--plugin", action="append", default=[])
    found, rest = plugins.parse_known_args(arguments)
    load_plugins(found.plugin, "--plugin")
    parser, commands = build_parser()
    if rest and not rest[0].startswith("-") and rest[0] not in commands:
        parser.error(f"there is no command '{rest[0]}'{nearest(rest[0], commands)}; 'timix-data --help' lists them")
    return parser.parse_args(rest)


def build_parser() -> tuple[argparse.ArgumentParser, Collection[str]]:
    """The argument parser, and the names of its commands."""
    parser = argparse.ArgumentParser(
        "timix-data", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"timix-data {__version__}")
    parser.add_argument("--plugin", metavar="MODULE", help="a Python module that adds layouts; may be given several times")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    for name in LAYOUTS.names():
        _add_layout(commands, name.replace("_", "-"), LAYOUTS[name])

    index = commands.add_parser("index", help="index tar shards that another tool wrote", description=INDEX_DESCRIPTION)
    index.add_argument("shards", nargs="+", metavar="SHARDS", help="a folder, a tar, or a quoted pattern")
    index.add_argument("--jobs", type=_positive, default=os.cpu_count(), metavar="N", help="processes (default: one per core)")
    how = index.add_mutually_exclusive_group()
    how.add_argument("--force", action="store_true", help="scan every tar, even with a valid index")
    how.add_argument(
        "--verify", action="store_true", help="write nothing; compare each tar with its index and manifest.json, exit with 2 if any differs"
    )
    index.add_argument(
        "--accept-truncated", action="store_true", help="index the complete samples of a truncated tar, and report a problem"
    )
    index.set_defaults(run=_index, go_on="the same command goes on from here")

    inspect = commands.add_parser("inspect", help="print the contents of shards, and show samples", description=INSPECT_DESCRIPTION)
    inspect.add_argument("shards", nargs="+", metavar="SHARDS", help="a folder, a tar, or a quoted pattern")
    inspect.add_argument("--samples", type=_positive, default=1000, metavar="N", help="samples to look at, spread evenly (default: 1000)")
    inspect.add_argument("--html", type=Path, metavar="PAGE.html", help="also write a page with sample images, captions and boxes")
    inspect.set_defaults(run=_inspect, go_on="run it again")
    return parser, commands.choices


def _add_layout(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, reader: Callable[..., Any]) -> None:
    """Add the command that reads a layout, with the options that all layouts share."""
    about = summary(reader)
    parser = commands.add_parser(name, help=about, description=f"Make shards of {about}.")
    add_arguments(parser, reader)
    output = parser.add_argument_group("output")
    output.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write the shards to")
    output.add_argument("--part", choices=("train", "val"), help="use only this part of a fixed split by image (default: all)")
    output.add_argument("--val-frac", type=_fraction, default=0.2, metavar="FRAC", help="share of the images in part val (default: 0.2)")
    output.add_argument("--samples-per-shard", type=int, default=1000, metavar="N", help="samples per shard (default: 1000)")
    output.add_argument("--overwrite", action="store_true", help="replace existing shards in the folder")
    parser.set_defaults(run=_write, reader=reader, go_on="run it again with --overwrite")


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(text)
    return value


_fraction.__name__ = "number from 0 to 1"


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


_positive.__name__ = "whole number, at least 1"


def _write(args: argparse.Namespace) -> None:
    from data_pipelines.shards import SKIPPED_NAME, make_shards

    account = make_shards(
        read(args.reader, args),
        args.out,
        part=args.part,
        val_frac=args.val_frac,
        samples_per_shard=args.samples_per_shard,
        overwrite=args.overwrite,
    )
    print(f"{args.out}: " + "\n  ".join(account.lines()))
    if account.rows_left_out or account.parts_left_out:
        print(f"  one by one in {args.out / SKIPPED_NAME}")


def _index(args: argparse.Namespace) -> None:
    from data_pipelines.indexing import index_shards, verify_shards

    if args.verify:
        lines = verify_shards(args.shards, jobs=args.jobs)
    else:
        lines = index_shards(args.shards, jobs=args.jobs, force=args.force, accept_truncated=args.accept_truncated)
    for line in lines:
        print(line)


def _inspect(args: argparse.Namespace) -> None:
    from data_pipelines.inspection import inspect_shards, lines
    from data_pipelines.page import write_page

    found = inspect_shards(args.shards, num_samples=args.samples, with_pictures=args.html is not None)
    print("\n".join(lines(found)))
    if args.html:
        write_page(found, args.html)
        print(f"\nsamples to look at: {args.html}")


if __name__ == "__main__":
    sys.exit(main())
