"""The command ``timix-data``: published collections to shards that timix-pl trains on.

Everything that is slow to import is imported after the arguments are understood.
"""

import argparse
import io
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from timix_pl import __version__
from timix_pl.core.errors import TimixError

if TYPE_CHECKING:
    from data_pipelines.rows import Row

DESCRIPTION = """\
Turn images and what is said about them into tar shards that timix-train reads.

Each command reads one layout in which collections are published. Images are copied
as they are; what cannot be used is counted, and listed in OUT/skipped.jsonl.
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
Write the index of each tar beside it, and manifest.json into each folder given.
Training indexes shards that have none, one after another; this does it in parallel,
and says what is wrong with them. Tars whose index is valid are not scanned again, so
that a run that was stopped goes on where it was.
"""

INSPECT_DESCRIPTION = """\
Print what shards hold: samples, formats, sizes, captions, regions, and what is wrong with
them. Counts are of all shards; the rest is of some samples, spread evenly over all.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0, or 2 when the input cannot be used.
    """
    args = build_parser().parse_args(arguments)
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


def build_parser() -> argparse.ArgumentParser:
    """The parser; ``run`` of its result is the function that does the work."""
    parser = argparse.ArgumentParser(
        "timix-data", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"timix-data {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    flickr = _add_layout(commands, "flickr", _flickr, "Flickr8k or Flickr30k: photos, a caption file, a split file")
    flickr.add_argument("--images", type=Path, required=True, metavar="DIR", help="the folder of photos")
    flickr.add_argument("--captions", type=Path, required=True, metavar="FILE", help="Flickr8k.token.txt, captions.txt or results.csv")
    flickr.add_argument("--split", type=Path, metavar="FILE", help="names of the photos to take, one per line (default: all)")

    coco = _add_layout(commands, "coco", _coco, "COCO: photos, captions and instances (boxes) as JSON")
    coco.add_argument("--images", type=Path, required=True, metavar="DIR", help="the folder of photos, such as train2017")
    coco.add_argument("--captions", type=Path, metavar="FILE", help="captions_*.json")
    coco.add_argument("--instances", type=Path, metavar="FILE", help="instances_*.json; a box's phrase is its category")

    genome = _add_layout(commands, "visual-genome", _visual_genome, "Visual Genome: photos, region descriptions and objects as JSON")
    genome.add_argument("--images", type=Path, required=True, metavar="DIR", help="the folder that holds VG_100K and VG_100K_2")
    genome.add_argument("--image-data", type=Path, required=True, metavar="FILE", help="image_data.json")
    genome.add_argument("--regions", type=Path, metavar="FILE", help="region_descriptions.json")
    genome.add_argument("--objects", type=Path, metavar="FILE", help="objects.json; a box's phrase is the object's first name")

    visual7w = _add_layout(commands, "visual7w", _visual7w, "Visual7W: photos, telling questions with choices as JSON")
    visual7w.add_argument("--images", type=Path, required=True, metavar="DIR", help="the folder of photos")
    visual7w.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="dataset_v7w_telling.json")
    visual7w.add_argument("--split", choices=("train", "val", "test"), help="take only this split of the file (default: all)")

    vqa2 = _add_layout(commands, "vqa2", _vqa2, "VQA v2: photos of COCO, questions and ten answers each as JSON")
    vqa2.add_argument("--images", type=Path, required=True, metavar="DIR", help="the folder of photos, such as train2014")
    vqa2.add_argument("--questions", type=Path, required=True, metavar="FILE", help="v2_OpenEnded_mscoco_*_questions.json")
    vqa2.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="v2_mscoco_*_annotations.json, of the same split")

    table = _add_layout(commands, "table", _table, "a TSV, CSV or Parquet table of image paths and captions")
    table.add_argument("tables", type=Path, nargs="+", metavar="TABLE", help=".tsv, .csv or .parquet")
    table.add_argument("--image-column", default="filepath", metavar="NAME", help="column of image paths (default: filepath)")
    table.add_argument("--caption-column", default="title", metavar="NAME", help="column of captions (default: title)")
    table.add_argument("--images", type=Path, metavar="DIR", help="where relative paths start (default: the table's folder)")
    table.add_argument("--no-header", action="store_true", help="the table has no line of names; columns are numbers from 0")
    table.add_argument("--quoted", action="store_true", help="fields of a .tsv may be in double quotes, as pandas writes them")

    img2dataset = _add_layout(commands, "img2dataset", _img2dataset, "an output folder of img2dataset (webdataset or files)")
    img2dataset.add_argument("folder", type=Path, metavar="DIR", help="the output folder")

    folder = _add_layout(commands, "folder", _folder, "any folder of images with NAME.txt or NAME.json beside NAME.jpg")
    folder.add_argument("folder", type=Path, metavar="DIR", help="the folder; sub-folders are read too")

    index = commands.add_parser("index", help="index tar shards that another tool wrote", description=INDEX_DESCRIPTION)
    index.add_argument("shards", nargs="+", metavar="SHARDS", help="a folder, a tar, or a quoted pattern")
    index.add_argument("--jobs", type=_positive, default=os.cpu_count(), metavar="N", help="processes (default: one per core)")
    how = index.add_mutually_exclusive_group()
    how.add_argument("--force", action="store_true", help="scan every tar, also those whose index is valid")
    how.add_argument(
        "--verify", action="store_true", help="write nothing; compare each tar with its index and manifest.json, exit with 2 if any differs"
    )
    index.add_argument(
        "--accept-truncated", action="store_true", help="index what is whole of a tar that was cut off; the rest is reported as a problem"
    )
    index.set_defaults(run=_index, go_on="the same command goes on from here")

    inspect = commands.add_parser("inspect", help="say what shards hold, and show some of it", description=INSPECT_DESCRIPTION)
    inspect.add_argument("shards", nargs="+", metavar="SHARDS", help="a folder, a tar, or a quoted pattern")
    inspect.add_argument("--samples", type=_positive, default=1000, metavar="N", help="samples to look at, spread evenly (default: 1000)")
    inspect.add_argument("--html", type=Path, metavar="PAGE.html", help="also write a page with sample images, captions and boxes")
    inspect.set_defaults(run=_inspect, go_on="run it again")
    return parser


def _add_layout(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, read, summary: str) -> argparse.ArgumentParser:
    """A command that reads a layout, with the options that all of these have."""
    parser = commands.add_parser(name, help=summary, description=f"Make shards of {summary}.")
    output = parser.add_argument_group("output")
    output.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write the shards to")
    output.add_argument("--part", choices=("train", "val"), help="take only this part of a fixed split by image (default: all)")
    output.add_argument("--val-frac", type=_fraction, default=0.2, metavar="FRAC", help="share of the images in part val (default: 0.2)")
    output.add_argument("--samples-per-shard", type=int, default=1000, metavar="N", help="samples in each shard (default: 1000)")
    output.add_argument("--overwrite", action="store_true", help="replace the shards that the folder has")
    parser.set_defaults(run=_write, read=read, go_on="run it again with --overwrite")
    return parser


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
        args.read(args),
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


def _flickr(args: argparse.Namespace) -> "Iterable[Row]":
    from data_pipelines.layouts.flickr import read_flickr

    return read_flickr(args.images, args.captions, args.split)


def _coco(args: argparse.Namespace) -> "Iterable[Row]":
    from data_pipelines.layouts.coco import read_coco

    return read_coco(args.images, args.captions, args.instances)


def _visual_genome(args: argparse.Namespace) -> "Iterable[Row]":
    from data_pipelines.layouts.visual_genome import read_visual_genome

    return read_visual_genome(args.images, args.image_data, args.regions, args.objects)


def _visual7w(args: argparse.Namespace) -> "Iterable[Row]":
    from data_pipelines.layouts.visual7w import read_visual7w

    return read_visual7w(args.images, args.annotations, args.split)


def _vqa2(args: argparse.Namespace) -> "Iterable[Row]":
    from data_pipelines.layouts.vqa2 import read_vqa2

    return read_vqa2(args.images, args.questions, args.annotations)


def _table(args: argparse.Namespace) -> "Iterable[Row]":
    from data_pipelines.layouts.table import TableForm, read_table

    form = TableForm(args.image_column, args.caption_column, header=not args.no_header, quoted=args.quoted)
    return read_table(args.tables, form, args.images)


def _img2dataset(args: argparse.Namespace) -> "Iterable[Row]":
    from data_pipelines.layouts.img2dataset import read_img2dataset

    return read_img2dataset(args.folder)


def _folder(args: argparse.Namespace) -> "Iterable[Row]":
    from data_pipelines.layouts.folder import read_folder

    return read_folder(args.folder)


if __name__ == "__main__":
    sys.exit(main())
