"""From what people typed to one checked configuration, or to all that is wrong with it at once."""

import re
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError
from yaml import YAMLError

from timix_pl.config.conf_dir import conf_dir
from timix_pl.config.entry_options import modules_of_entries
from timix_pl.config.options import schema_options
from timix_pl.config.saved import adopt_init
from timix_pl.config.schema import RootConfig
from timix_pl.config.validate import evaluation_problems, is_used, problems, unused_options
from timix_pl.core.choices import EVALUATORS, LOGGERS, LOSSES, MIXERS, OPTIMIZERS
from timix_pl.core.errors import ConfigError, RunError
from timix_pl.core.plugins import load_plugins
from timix_pl.core.words import nearest

REFUSALS = (HydraException, OmegaConfBaseException, YAMLError)

GROUPS = {"mixing": MIXERS, "loss": LOSSES, "optim": OPTIMIZERS, "logger": LOGGERS}
"""Groups of choices that plugins add to."""


def compose(overrides: Sequence[str] = ()) -> RootConfig:
    """Compose ``conf/config.yaml`` with ``overrides``, check it, and resolve its interpolations.

    Raises:
        ConfigError: with all problems: overrides that cannot be read or do not fit the schema, values out of range, contradictions.
    """
    words = _understood(overrides, conf_dir())
    typed = {_key(word) for word in words}

    def check(cfg: RootConfig) -> list[str]:
        found = [*unused_options(cfg, typed, lambda: _of_files(words)), *adopt_init(cfg, typed)]
        take_ratio_0_as_plain_clip(cfg)
        return found + problems(cfg)

    cfg = _checked(words, conf_dir(), check)
    # Entry points load plugins that nobody names. Whoever loads this run where they are missing shall read which ones it needs.
    cfg.plugins += [module for module in modules_of_entries(cfg) if not any(f"{module}.".startswith(f"{own}.") for own in cfg.plugins)]
    return cfg


def unused_words(overrides: Sequence[str]) -> set[str]:
    """Overrides of options that have no effect in what all of them make; none where they make nothing."""
    words = _understood(overrides, conf_dir())
    try:
        cfg = _compose(words, conf_dir())
    except REFUSALS:
        return set()
    return {given for given, word in zip(overrides, words, strict=True) if not is_used(cfg, _key(word))}


def tasks_override(word: str, *, choices: bool = True) -> str:
    """``evaluation=[retrieval,grounding]`` as ``evaluation.tasks=...``; other words as they are, and where there are ``choices``, these."""
    key, _, value = word.partition("=")
    names = [name.strip() for name in value.strip("[]").split(",")]
    is_list = key == "evaluation" and (not choices or value.startswith("[") or set(names) <= set(EVALUATORS.names()))
    return f"evaluation.tasks=[{','.join(names)}]" if is_list else word


def recompose(saved: Path, overrides: Sequence[str] = ()) -> RootConfig:
    """Read a run's ``config.yaml`` again, with ``overrides`` of single keys, to evaluate it; what only training needs is not checked.

    Raises:
        RunError: there is no such file.
        ConfigError: overrides that cannot be read or do not fit the schema, that play no part in an evaluation, or that have no effect;
            unknown evaluation tasks; plugins that are missing.
    """
    if not saved.is_file():
        raise RunError(f"{saved} does not exist, so the run's configuration is unknown; name a run directory or a checkpoint inside one")
    try:
        stored = OmegaConf.load(saved)
    except (*REFUSALS, ValueError) as error:
        raise RunError(f"{saved} cannot be read: {str(error).splitlines()[0]}; put back the file that the run wrote") from error
    load_plugins(OmegaConf.select(stored, "plugins") or (), f"{saved}: plugins")
    words = _understood(overrides, saved.parent)
    typed = {_key(word) for word in words}

    def check(cfg: RootConfig) -> list[str]:
        effectless = [] if _of_training(words) else unused_options(cfg, typed)
        return [*_of_training(words), *effectless, *evaluation_problems(cfg)]

    return _checked([_adding(stored, word) for word in words], saved.parent, check)


def _of_training(words: Sequence[str]) -> list[str]:
    """What is wrong with words that set options of training only."""
    options = {word: schema_options().get(_key(word)) for word in words}
    return [
        f"{word}: plays no part in an evaluation; leave it out"
        for word, option in options.items()
        if option is not None and not option.facts.in_evaluation
    ]


def _understood(overrides: Sequence[str], folder: Path) -> list[str]:
    """The overrides as Hydra takes them, after the plugins that they name have been imported.

    Raises:
        ConfigError: a plugin cannot be imported.
    """
    naming = [word for word in overrides if _key(word) in ("plugins", "experiment", "hydra.searchpath")]
    if any(_key(word) != "experiment" for word in naming):
        with suppress(*REFUSALS):  # what is wrong with these words is told when all of them are composed
            load_plugins(_compose(naming, folder).plugins)
    return [_option_override(tasks_override(word)) for word in overrides]


def _option_override(word: str) -> str:
    """``mixing.options.NAME=...`` adds a key to a dictionary, which Hydra writes with ``++``."""
    return f"++{word}" if re.match(r"\w+\.options\.", word) else word


def _of_files(words: Sequence[str]) -> RootConfig:
    """The configuration that the files make without the other words."""
    return _compose([word for word in words if _key(word) in ("experiment", "hydra.searchpath")], conf_dir())


def _adding(stored: Any, override: str) -> str:
    """The override, as one that adds its key where the schema has it and what the run stored, in an older version, does not."""
    section, _, name = _key(override).rpartition(".")
    stored = OmegaConf.select(stored, section) if section else stored
    return f"++{override}" if _key(override) in schema_options() and name not in (stored or {}) else override


def to_root(cfg: DictConfig) -> RootConfig:
    """A composed configuration as the schema's dataclasses, interpolations resolved; keys that the schema lacks raise."""
    checked = OmegaConf.merge(_schema(), OmegaConf.to_container(cfg, resolve=True))
    root: RootConfig = OmegaConf.to_object(checked)  # type: ignore[assignment]
    return root


def take_ratio_0_as_plain_clip(cfg: RootConfig) -> None:
    """``mixing.ratio=0`` becomes ``mixing=none``."""
    if cfg.mixing.kind != "none" and cfg.mixing.ratio == 0:
        cfg.mixing.kind, cfg.pta.enabled = "none", False


def search_path_override(config_dir: str) -> str:
    """The override that lets the YAML files of ``config_dir`` join those of timix-pl.

    Raises:
        ConfigError: it is no folder.
    """
    folder = Path(config_dir).resolve()
    if not folder.is_dir():
        raise ConfigError([f"--config-dir {config_dir}: there is no such folder; name one that holds e.g. experiment/mine.yaml"])
    return f"hydra.searchpath=['file://{folder}']"


def _checked(overrides: Sequence[str], folder: Path, check: Callable[[RootConfig], list[str]]) -> RootConfig:
    try:
        cfg = _compose(overrides, folder)
    except REFUSALS as error:
        raise ConfigError(_all_problems(overrides, folder, check)) from error
    if found := check(cfg):
        raise ConfigError(found)
    return cfg


@cache
def _schema() -> DictConfig:
    """What ``conf/config.yaml`` starts from. It is made once, because to make it takes a tenth of a composition."""
    schema = OmegaConf.structured(RootConfig)
    ConfigStore.instance().store(name="schema", node=schema)
    return schema


def _compose(overrides: Iterable[str], folder: Path) -> RootConfig:
    _schema()  # from now on, Hydra knows it
    overrides = list(overrides)
    with initialize_config_dir(config_dir=str(folder.resolve()), version_base="1.3"):
        try:
            return to_root(hydra_compose("config", overrides))
        except MissingConfigException:
            of_plugins = [part for word in overrides for part in _plugin_choice(word)]
            if of_plugins == overrides:
                raise
            return to_root(hydra_compose("config", of_plugins))


def _plugin_choice(word: str) -> list[str]:
    """``mixing=NAME`` of a plugin, which has no YAML file: what the file of another strategy would set."""
    group, _, name = word.partition("=")
    registry = GROUPS.get(group)
    if registry is None or name not in registry or registry.plugin_of(name) is None:
        return [word]
    without_pta = group == "mixing" and not registry[name].needs_scores
    return [f"{registry.key}={name}", *(["pta.enabled=false"] if without_pta else [])]


def _all_problems(overrides: Sequence[str], folder: Path, check: Callable[[RootConfig], list[str]]) -> list[str]:
    """What is wrong with each override on its own, and with the configuration that the others make, whatever the wrong ones were to be.

    A mistyped experiment could have set anything and a mistyped task asked for anything, so then nothing is said of what the others leave
    open.
    """
    search_path = [override for override in overrides if override.startswith("hydra.searchpath=")]
    good, found, bad_keys = [], [], []
    for override in overrides:
        try:
            _compose({*search_path, override}, folder)
            good.append(override)
        except REFUSALS as error:
            found.append(_message(override, error))
            bad_keys.append(_key(override))
    if {"experiment", "task"} & set(bad_keys):
        return found
    try:
        follows = _follows_from(bad_keys, {_key(override) for override in good})
        return found + [problem for problem in check(_compose(good, folder)) if not follows(problem)]
    except REFUSALS as error:
        return [*found, _message(" ".join(good), error)]


def _follows_from(bad_keys: Sequence[str], good_keys: Set[str]) -> Callable[[str], bool]:
    """Whether a problem names a key that a wrong override set, or could have: a choice, or a key that does not exist, its whole section."""
    open_sections = {_section(key) for key in bad_keys if key not in schema_options() or key.endswith(".kind")}

    def follows(problem: str) -> bool:
        named = schema_options().keys() & re.findall(r"[\w.]+", problem.partition(": ")[0])
        return any(key in bad_keys or (_section(key) in open_sections and key not in good_keys) for key in named)

    return follows


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _section(key: str) -> str:
    return key.partition(".")[0]


def _message(override: str, error: Exception) -> str:
    key, value = _key(override), override.partition("=")[2]
    if key in schema_options() or ".options." in key:
        override = override.removeprefix("++")
    if isinstance(error, OverrideParseException):
        if not value:
            return f"{override}: expected KEY=VALUE"
        return f"""{override}: a value with special characters needs double quotes inside single ones: '{key}="{value}"'"""
    if isinstance(error, YAMLError):
        return f"{override}: not a YAML file: {' '.join(str(error).split())}"
    if isinstance(error, MissingConfigException):
        names = sorted([*(error.options or ()), *(EVALUATORS.names() if key == "evaluation" else ())])
        return f"{override}: no such option{nearest(value, names)}; choose from {', '.join(names)}"
    if "Ambiguous value" in str(error):
        return f"{override}: several values; to sweep over them add -m, for a list write '{key}=[{value}]'"
    cause = error.__cause__ or error.__context__ or error
    if isinstance(cause, ValidationError | ConfigKeyError | ConfigAttributeError):
        at = str(cause.full_key or key).partition("[")[0]
        name = key if key.startswith(at) else at
        option = schema_options().get(name)
        if name == "experiment":
            return f"{override}: the file must begin with the line '# @package _global_', so that its keys are those of the whole"
        if option is None:
            return f"{override}: there is no key {name}{nearest(name, schema_options())}; docs/configuration.md lists all"
        return f"{override}: {name} takes {option.takes}; the default is {option.default_text}"
    return f"{override}: {str(cause).splitlines()[0]}"
