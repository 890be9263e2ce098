"""A sweep's jobs, known and checked before the first one starts."""

import itertools
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

from timix_pl.config.compose import compose
from timix_pl.config.options import as_typed
from timix_pl.config.schema import Accelerator, RootConfig
from timix_pl.core.errors import ConfigError

ONE_DEVICE = (
    "a sweep's jobs run one after another in one process, which uses one device; set trainer.devices=1, or start each job by itself"
)


def check_sweep(overrides: Sequence[str]) -> None:
    """Compose and check every job of a sweep, as Hydra's own sweeper will make them.

    Raises:
        ConfigError: what is wrong with any of the jobs, each problem once; or several devices, which jobs in one process cannot share.
    """
    own_launcher = any(override.startswith("hydra/launcher=") for override in overrides)
    found: list[str] = []
    for job in jobs(overrides):
        try:
            cfg = compose(job)
        except ConfigError as error:
            found += error.problems
        else:
            if not own_launcher and _num_devices(cfg) > 1:
                found.append(f"trainer.devices={as_typed(cfg.trainer.devices)}: {ONE_DEVICE}")
    if found:
        raise ConfigError(list(dict.fromkeys(found)))


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


def swept(overrides: Sequence[str], number: int) -> str:
    """What tells job ``number`` of a sweep from the others."""
    return " ".join(word for word in jobs(overrides)[number] if word not in overrides)


def _num_devices(cfg: RootConfig) -> int:
    if cfg.trainer.devices is None and cfg.trainer.accelerator is not Accelerator.cpu:
        import torch

        return torch.cuda.device_count()
    return (cfg.trainer.devices or 1) * cfg.trainer.num_nodes
