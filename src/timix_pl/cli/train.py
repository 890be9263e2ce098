"""``timix-train``: pre-train a dual encoder. Everything heavy is imported after the arguments are read, so that ``--help`` is quick."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from timix_pl.cli.arguments import parse, parser
from timix_pl.cli.errors import clean_exit
from timix_pl.config.folder import conf_dir, groups
from timix_pl.config.options import schema_options
from timix_pl.core.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from timix_pl.config.schema import RootConfig

EXAMPLES = """\
examples:
  timix-train experiment=demo
      the embedded data set on a CPU, in minutes: a first look
  timix-train dry_run=true experiment=demo
      show the configuration, the parameters and the cost, and train nothing
  timix-train data.train_shards=shards/train data.region_shards=shards/regions \\
      data.val_shards=shards/val model=vit_b_32 trainer.max_epochs=10
      your own data, as tar shards (timix-data makes them)
  timix-train -m experiment=demo mixing.ratio=0,0.5,1
      a sweep: one run after another, in runs/demo/0, runs/demo/1, ...
"""

FREQUENT = (
    "data.train_shards",
    "data.region_shards",
    "data.val_shards",
    "data.global_batch_size",
    "mixing.ratio",
    "optim.lr",
    "trainer.max_steps",
    "trainer.max_epochs",
    "run_dir",
    "resume",
    "seed",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with ``arguments`` (of the process, by default)."""
    made = parser(
        "timix-train", "Pre-train an image tower and a text tower on image-text pairs, with text-aware image mixing (TiMix).", _details()
    )
    made.add_argument("-m", "--multirun", action="store_true", help="run every combination of comma-separated values")
    made.add_argument("--config-dir", metavar="DIR", help="a folder of your own YAML files, e.g. DIR/experiment/mine.yaml")
    parsed = parse(made, arguments)
    with clean_exit("timix-train"):
        overrides = parsed.overrides
        if parsed.config_dir is not None:
            from timix_pl.config.compose import search_path_override

            overrides = [search_path_override(parsed.config_dir), *overrides]
        if parsed.multirun:
            _sweep(overrides)
        else:
            from timix_pl.config.compose import compose

            _run(compose(overrides))


def _run(cfg: RootConfig) -> None:
    from timix_pl.config.validate import shard_problems

    if not cfg.dry_run and (found := shard_problems(cfg)):
        raise ConfigError(found)

    from timix_pl.cli.logs import show_logs
    from timix_pl.config.build import dry_run, train
    from timix_pl.core.distributed import rank
    from timix_pl.reports.table import results_table

    show_logs()
    if cfg.dry_run:
        print(dry_run(cfg))
        return
    result = train(cfg)
    if rank() == 0:
        if result.metrics:
            print(results_table(*result))
        print(f"Report: {cfg.run_dir}/report.html")


def _sweep(overrides: list[str]) -> None:
    import hydra

    from timix_pl.config.compose import compose
    from timix_pl.config.store import register_schema
    from timix_pl.config.sweep import check_sweep, jobs

    check_sweep(overrides)
    if "dry_run=true" in overrides:
        for number, job in enumerate(jobs(overrides)):
            cfg = compose(job)
            cfg.run_dir = f"{cfg.run_dir}/{number}"
            _run(cfg)
        return
    register_schema()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come back here, instead of Hydra's own report
    sys.argv = [sys.argv[0], "--multirun", *overrides]
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(_job)()


def _job(composed: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig

    from timix_pl.config.compose import to_root
    from timix_pl.config.sweep import swept

    cfg = to_root(composed)
    hydra_cfg = HydraConfig.get()
    cfg.run_dir = os.path.relpath(hydra_cfg.runtime.output_dir)
    if cfg.logger.label is None:
        cfg.logger.label = swept(sys.argv[2:], hydra_cfg.job.num)
    print(f"Run {hydra_cfg.job.num}: {' '.join(hydra_cfg.overrides.task)}, in {cfg.run_dir}", flush=True)
    _run(cfg)


def _details() -> str:
    choices = "\n".join(f"  {group + '=':<12} {', '.join(names)}" for group, names in groups().items())
    options = schema_options()
    frequent = "\n".join(f"  {key + '=':<24} {options[key].help} [{options[key].default_text}]" for key in FREQUENT)
    return (
        f"{EXAMPLES}\nchoices, each a file in conf/:\n{choices}\n\noptions most used, [default]:\n{frequent}\n\n"
        "All options: docs/configuration.md. Pre-training leaves its checkpoints, metrics.csv and report.html in run_dir."
    )
