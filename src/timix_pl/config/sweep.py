"""A sweep's jobs, known and checked before the first one starts."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

from timix_pl.config.compose import compose, unused_words
from timix_pl.config.options import schema_options
from timix_pl.config.schema import LauncherKind, RootConfig
from timix_pl.config.validate import is_used
from timix_pl.core.errors import ConfigError


@dataclass(frozen=True)
class Job:
    """One run of a sweep, or a run alone: the words that were typed, and the checked configuration that they make."""

    words: list[str]
    cfg: RootConfig

    def in_run_dir(self) -> list[str]:
        """The words that start it by itself, in its own folder."""
        own = {"run_dir": self.cfg.run_dir, "logger.label": self.cfg.logger.label or ""}
        return [*self.words, *(f"{key}={_quoted(value)}" for key, value in own.items() if value)]


def words_of_a_rank(words: Sequence[str]) -> list[str]:
    """The words that make the same run in a process that a launcher has started: with ``launcher.*`` as when there is nothing to start."""
    return [*words, *(f"{key}={option.default_text}" for key, option in schema_options().items() if key.startswith("launcher."))]


def _quoted(text: str) -> str:
    """As Hydra reads it back: backslashes count before a quote, and OmegaConf's before an interpolation."""
    escaped = re.sub(r"(\\*)(\$\{)", r"\1\1\\\2", text)
    return "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), escaped) + "'"


def sweep_jobs(overrides: Sequence[str]) -> list[Job]:
    """Every job of a sweep, composed and checked; number N writes to ``run_dir/N``.

    Where a job has no use for an option that all are given and others use, it starts without it.

    Raises:
        ConfigError: what is wrong with any of the jobs, each problem once; or jobs of one SLURM array that ask for different things.
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
        "launcher.kind=slurm: a sweep is one array, whose jobs get the same from SLURM; "
        "do not sweep over launcher.*, trainer.devices, trainer.num_nodes or trainer.accelerator, but submit these sweeps one by one"
    ]


def jobs(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job: the product of all comma-separated values, the last one varying fastest.

    Raises:
        ConfigError: an override that cannot be read.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException:
        compose(overrides)  # raises with the message
        raise
    values = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [override.input_line or ""]
        for override in parsed
    ]
    return [list(job) for job in itertools.product(*values)]
