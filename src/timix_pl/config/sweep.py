"""The jobs of a sweep, all checked before the first one starts."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

from timix_pl.config.compose import compose, unused_words
from timix_pl.config.schema import LauncherKind, RootConfig
from timix_pl.config.schema_options import schema_options
from timix_pl.config.validate import is_used
from timix_pl.core.errors import ConfigError


@dataclass(frozen=True)
class Job:
    """One run: its overrides (``words``) and the checked configuration that they give."""

    words: list[str]
    cfg: RootConfig

    def in_run_dir(self) -> list[str]:
        """The overrides that start this run separately, in its own folder."""
        own = {"run_dir": self.cfg.run_dir, "logger.label": self.cfg.logger.label or ""}
        return [*self.words, *(f"{key}={_quoted(value)}" for key, value in own.items() if value)]


def words_of_a_rank(words: Sequence[str]) -> list[str]:
    """The overrides for a process that a launcher starts. ``launcher.*`` is set to its defaults, so that the process starts no others."""
    return [*words, *(f"{key}={option.default_text}" for key, option in schema_options().items() if key.startswith("launcher."))]


def _quoted(text: str) -> str:
    """The text in quotes, as an override that Hydra reads back unchanged."""
    # Backslashes are escapes only before a quote (for Hydra) and before an interpolation (for OmegaConf): only there they are doubled.
    escaped = re.sub(r"(\\*)(\$\{)", r"\1\1\\\2", text)
    return "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), escaped) + "'"


def sweep_jobs(overrides: Sequence[str]) -> list[Job]:
    """Every job of a sweep, composed and checked; job number N writes to ``run_dir/N``.

    An option for all jobs is left out of those where it has no effect, if it has one in at least one other job.

    Raises:
        ConfigError: any job has a problem (each problem is listed once), or jobs of one SLURM array request different resources.
    """
    found = [
        f"{override}: timix-train starts a sweep's jobs by itself; choose launcher=local, torchrun or slurm"
        for override in overrides
        if override.lstrip("+").startswith(("hydra/launcher=", "hydra/sweeper="))
    ]
    words_of_jobs = jobs(overrides)
    cfgs, problems = _composed(words_of_jobs)
    if problems:
        unused = [unused_words(words) & set(overrides) for words in words_of_jobs]
        by_all = set.intersection(*unused)
        words_of_jobs = [[word for word in words if word not in own - by_all] for words, own in zip(words_of_jobs, unused, strict=True)]
        cfgs, problems = _composed(words_of_jobs)
    found += [*problems, *_array_problems(cfgs)]
    if found:
        raise ConfigError(list(dict.fromkeys(found)))
    for number, (words, cfg) in enumerate(zip(words_of_jobs, cfgs, strict=True)):
        cfg.run_dir = f"{cfg.run_dir}/{number}"
        if is_used(cfg, "logger.label"):
            cfg.logger.label = cfg.logger.label or " ".join(word for word in words if word not in overrides)
    return [Job(words, cfg) for words, cfg in zip(words_of_jobs, cfgs, strict=True)]


def _composed(words_of_jobs: Sequence[Sequence[str]]) -> tuple[list[RootConfig], list[str]]:
    cfgs, found = [], []
    for words in words_of_jobs:
        try:
            cfgs.append(compose(words))
        except ConfigError as error:
            found += error.problems
    return cfgs, found


def _array_problems(cfgs: list[RootConfig]) -> list[str]:
    asked = [(cfg.launcher, cfg.trainer.devices, cfg.trainer.num_nodes, cfg.trainer.accelerator) for cfg in cfgs]
    if all(cfg.launcher.kind is not LauncherKind.slurm for cfg in cfgs) or all(one == asked[0] for one in asked):
        return []
    return [
        "launcher.kind=slurm: a sweep is one job array, and all its jobs get the same resources from SLURM; "
        "do not sweep over launcher.*, trainer.devices, trainer.num_nodes or trainer.accelerator: submit one sweep for each value"
    ]


def jobs(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job: every combination of the comma-separated values, the last override varying fastest.

    Raises:
        ConfigError: an override cannot be parsed.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException:
        compose(overrides)  # raises the ConfigError with the full message
        raise
    values = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [override.input_line or ""]
        for override in parsed
    ]
    return [list(job) for job in itertools.product(*values)]
