"""``timix-train``: train a model. Slow imports follow after the arguments are parsed, so that ``--help`` is fast."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from timix_pl.cli.arguments import parse, parser
from timix_pl.cli.errors import clean_exit
from timix_pl.cli.plugins import plugin_help
from timix_pl.config.conf_dir import groups
from timix_pl.config.schema_options import schema_options
from timix_pl.core.errors import STATUS_OF_A_STOPPED_RUN, ConfigError
from timix_pl.core.launched import launched

if TYPE_CHECKING:
    from timix_pl.config.schema import RootConfig
    from timix_pl.config.sweep import Job

EXAMPLES = """\
examples:
  timix-train experiment=demo
      a first look: train on the embedded data set on a CPU, in minutes
  timix-train dry_run=true experiment=demo
      show the configuration, the model's size and the estimated cost; do not train
  timix-train data.train_shards=shards/train data.val_shards=shards/val \\
      model=vit_b_32 trainer.max_epochs=10
      train on your own data, in tar shards (timix-data makes them)
  timix-train task=vqa init=runs/mine data.train_shards=shards/vqa_train \\
      data.val_shards=shards/vqa_val trainer.max_epochs=10
      fine-tune a pre-trained model to answer questions; docs/vqa.md
  timix-train task=captioning init=runs/mine data.train_shards=shards/train \\
      data.val_shards=shards/val trainer.max_epochs=10
      train a decoder on a pre-trained model to describe images; docs/captioning.md
  timix-train -m experiment=demo mixing.ratio=0,0.5,1
      a sweep: one run after another, in runs/demo/0, runs/demo/1, ...
  timix-train launcher=slurm trainer.num_nodes=8 trainer.devices=8 ...
      use 64 GPUs of a SLURM cluster; docs/launching.md shows all launchers
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with ``arguments``, by default those of the process."""
    with clean_exit("timix-train"):
        about = "Pre-train an image tower and a text tower on image-text pairs, with text-aware image mixing (TiMix)."
        made = parser("timix-train", about, _details() + plugin_help(arguments))
        made.add_argument("-m", "--multirun", action="store_true", help="run every combination of comma-separated values")
        made.add_argument("--config-dir", metavar="DIR", help="a folder of your own YAML files, e.g. DIR/experiment/mine.yaml")
        parsed = parse(made, arguments)
        overrides = parsed.overrides
        if parsed.config_dir is not None:
            from timix_pl.config.compose import search_path_override

            overrides = [search_path_override(parsed.config_dir), *overrides]
        if parsed.multirun:
            from timix_pl.config.sweep import sweep_jobs

            _start(sweep_jobs(overrides), sweep=True)
        else:
            from timix_pl.config.compose import compose
            from timix_pl.config.sweep import Job

            _start([Job(overrides, compose(overrides))], sweep=False)


def _start(jobs: list[Job], *, sweep: bool) -> None:
    """Run checked jobs in this process, in new processes or on a cluster."""
    from timix_pl.config.schema import LauncherKind
    from timix_pl.runs.check_shards import shard_problems

    cfgs, first = [job.cfg for job in jobs], jobs[0].cfg
    training = [cfg for cfg in cfgs if not cfg.dry_run]
    if found := dict.fromkeys(problem for cfg in training for problem in [*_twice_launched(cfg, sweep), *shard_problems(cfg)]):
        raise ConfigError(list(found))
    if not training or (first.launcher.kind is LauncherKind.local and not sweep):
        with _nothing_to_save():
            for cfg in cfgs:
                _run(cfg)
    elif first.launcher.kind is LauncherKind.slurm:
        from timix_pl.launching.slurm import submit

        run_dir = Path(first.run_dir)
        submit(jobs, (run_dir.parent if sweep else run_dir) / "slurm")
    elif sweep:
        from timix_pl.launching.sweep import run_in_turn

        run_in_turn(jobs)
    else:
        from timix_pl.launching.torchrun import run_under_torchrun

        sys.exit(run_under_torchrun(first, jobs[0].words))


def _twice_launched(cfg: RootConfig, sweep: bool) -> list[str]:
    started = launched()
    if started is None:
        return []
    if sweep:
        return [
            f"-m: {started.by} started {started.num_ranks} processes of this command, and each would run the whole sweep; start "
            f"timix-train -m once, without {started.by}, with trainer.devices=... and launcher=local, torchrun or slurm"
        ]
    if cfg.launcher.kind != "local":
        return [f"launcher.kind={cfg.launcher.kind}: {started.by} has already started this process; remove the option"]
    return []


@contextmanager
def _nothing_to_save() -> Iterator[None]:
    """Before training starts there is nothing to save, so SIGTERM and SIGUSR1 end the command at once with the status of a stopped run."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread can set signal handlers
        yield
        return
    before = {number: signal.signal(number, lambda *_: sys.exit(STATUS_OF_A_STOPPED_RUN)) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) != signal.SIG_IGN:  # a run that was asked to stop leaves them ignored
                signal.signal(number, handler)


def _run(cfg: RootConfig) -> None:
    from timix_pl.cli.logs import show_logs
    from timix_pl.core.distributed import rank
    from timix_pl.reports.table import results_table
    from timix_pl.runs.dry_run import dry_run
    from timix_pl.runs.train import train

    show_logs()
    if cfg.dry_run:
        print(dry_run(cfg))
        return
    result = train(cfg)
    if rank() == 0:
        if result.metrics:
            print(results_table(result.metrics, result.chance, result.descriptions))
        print(f"Report: {cfg.run_dir}/report.html")


def _details() -> str:
    choices = "\n".join(f"  {group + '=':<12} {', '.join(names)}" for group, names in groups().items())
    options = [option for option in schema_options().values() if option.facts.frequent]
    frequent = "\n".join(f"  {option.key + '=':<24} {option.facts.help} [{option.default_text}]" for option in options)
    return (
        f"{EXAMPLES}\nchoices, each a file in conf/:\n{choices}\n\nmost used options, [default]:\n{frequent}\n\n"
        "All options: docs/configuration.md. Checkpoints, metrics.csv and report.html are written to run_dir.\n"
    )


if __name__ == "__main__":
    main()
