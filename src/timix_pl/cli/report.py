"""``timix-report``: write the reports of one or more runs."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from timix_pl import __version__
from timix_pl.cli.errors import clean_exit
from timix_pl.core.errors import ConfigError
from timix_pl.core.metric import Metric

GENERATOR = b'<meta name="generator" content="timix-pl">'
"""Stands near the beginning of each page. A file without it is not overwritten."""


def main(argv: Sequence[str] | None = None) -> None:
    """Write a report for each run directory and print its path; with ``--out``, also write a page that compares the runs."""
    parser = argparse.ArgumentParser(
        prog="timix-report",
        description="Write RUN_DIR/report.html: final results with the level of chance, curves, mixed pairs, heat maps and configuration, "
        "in one file that opens offline. The report of an unfinished run shows what it has done so far.",
        epilog="example: timix-report runs/demo",
    )
    parser.add_argument("--version", action="version", version=f"timix-report {__version__}")
    parser.add_argument("run_dirs", metavar="RUN_DIR", nargs="+", type=Path, help="the folder of a run of timix-train")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="also write a page that compares the final results and settings of the runs"
    )
    arguments = parser.parse_args(argv)
    if arguments.out and len(arguments.run_dirs) < 2:
        parser.error("--out compares runs: give two or more run directories, or remove --out")
    with clean_exit("timix-report"):
        if arguments.out and (arguments.out.is_dir() or not arguments.out.parent.is_dir()):
            example = arguments.run_dirs[0].parent / "comparison.html"
            raise ConfigError([f"--out {arguments.out}: must be a file in a folder that exists, e.g. {example}"])
        if arguments.out and arguments.out.exists() and GENERATOR not in arguments.out.read_bytes()[:4096]:
            raise ConfigError([f"--out {arguments.out}: exists, and was not written by timix-report; choose another name, or remove it"])
        from timix_pl.reports.comparison import write_comparison
        from timix_pl.reports.page import write_report

        for run_dir in arguments.run_dirs:
            print(write_report(run_dir, _built_in_metric))
        if arguments.out:
            print(write_comparison(arguments.run_dirs, arguments.out, _built_in_metric))


def _built_in_metric(name: str) -> Metric | None:
    """The description of a built-in metric, for runs of earlier versions, which did not store it."""
    # Imported here, because it imports PyTorch, which other runs do not need.
    from timix_pl.building.evaluators import built_in_metric

    return built_in_metric(name)


if __name__ == "__main__":
    main()
