"""``timix-report``: write the page of one or more runs."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from timix_pl import __version__
from timix_pl.cli.errors import clean_exit
from timix_pl.core.errors import ConfigError
from timix_pl.core.metric import Metric

GENERATOR = b'<meta name="generator" content="timix-pl">'
"""Near the beginning of each page, so that no other file is overwritten."""


def main(argv: Sequence[str] | None = None) -> None:
    """Write a report for each run directory, name its path, and compare the runs where ``--out`` is given."""
    parser = argparse.ArgumentParser(
        prog="timix-report",
        description="Write RUN_DIR/report.html: final figures beside chance, curves, mixed pairs, heat maps and configuration, in one file "
        "that opens offline. A run that is still going or was killed is reported as far as it got.",
        epilog="example: timix-report runs/demo",
    )
    parser.add_argument("--version", action="version", version=f"timix-report {__version__}")
    parser.add_argument("run_dirs", metavar="RUN_DIR", nargs="+", type=Path, help="the folder of a run, as timix-train named it")
    parser.add_argument("--out", metavar="FILE", type=Path, help="also write a page that compares the runs: final figures, settings")
    arguments = parser.parse_args(argv)
    if arguments.out and len(arguments.run_dirs) < 2:
        parser.error("--out compares runs: give two or more run directories, or leave --out away")
    with clean_exit("timix-report"):
        if arguments.out and (arguments.out.is_dir() or not arguments.out.parent.is_dir()):
            example = arguments.run_dirs[0].parent / "comparison.html"
            raise ConfigError([f"--out {arguments.out}: must be a file in a folder that exists, e.g. {example}"])
        if arguments.out and arguments.out.exists() and GENERATOR not in arguments.out.read_bytes()[:4096]:
            raise ConfigError([f"--out {arguments.out}: exists, and is no page of timix-report; choose another name, or remove it"])
        from timix_pl.reports.comparison import write_comparison
        from timix_pl.reports.page import write_report

        for run_dir in arguments.run_dirs:
            print(write_report(run_dir, _built_in_metric))
        if arguments.out:
            print(write_comparison(arguments.run_dirs, arguments.out, _built_in_metric))


def _built_in_metric(name: str) -> Metric | None:
    """PyTorch is imported only where a run was written by an earlier version."""
    from timix_pl.building.evaluators import built_in_metric

    return built_in_metric(name)


if __name__ == "__main__":
    main()
