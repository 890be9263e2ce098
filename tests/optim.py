"""Optimizer settings of tests, by the names that the configuration has."""

from typing import Any

from timix_pl.core.choices import OPTIMIZERS, SCHEDULES
from timix_pl.optim.settings import OptimSettings


def optim_settings(*, kind: str = "adamw", schedule: str = "cosine", **options: Any) -> OptimSettings:
    entries = {}
    for name, registry, choice in (("optimizer", OPTIMIZERS, kind), ("schedule", SCHEDULES, schedule)):
        own = {key: options.pop(key) for key in registry.options(choice).keys() & options.keys()}
        entries[name] = registry[choice](**own)
    return OptimSettings(**entries, **options)


def slower_towers(lr_scale):
    """Parameter groups of a fine-tuned model."""
    return lambda model, optim: optim.fine_tuning_groups(model.head, model.encoder, towers_lr_scale=lr_scale)
