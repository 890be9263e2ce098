"""From the overrides on the command line to a checked configuration, or to a list of all problems."""

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
from timix_pl.config.derived import choose_teaching, take_ratio_0_as_plain_clip
from timix_pl.config.entry_options import modules_of_entries
from timix_pl.config.saved import adopt_init, plugins_of_run
from timix_pl.config.schema import RootConfig
from timix_pl.config.schema_options import schema_options
from timix_pl.config.validate import evaluation_problems, is_used, problems, unused_options
from timix_pl.core.choices import EVALUATORS, LOGGERS, LOSSES, MIXERS, OPTIMIZERS
from timix_pl.core.errors import ConfigError, RunError
from timix_pl.core.plugins import load_installed_plugins, load_plugins
from timix_pl.core.words import nearest

REFUSALS = (HydraException, OmegaConfBaseException, YAMLError)

GROUPS = {"mixing": MIXERS, "loss": LOSSES, "optim": OPTIMIZERS, "logger": LOGGERS}
"""Groups of choices that plugins can extend."""


def compose(overrides: Sequence[str] = ()) -> RootConfig:
    """Compose ``conf/config.yaml`` with ``overrides``, resolve its interpolations, and check it.

    Raises:
        ConfigError: lists all problems: overrides that cannot be parsed or do not fit the schema, values out of range, contradictions.
    """
    words = _understood(overrides, conf_dir())
    typed = {_key(word) for word in words}

    def check(cfg: RootConfig) -> list[str]:
        found = [*unused_options(cfg, typed, lambda: _of_files(words)), *adopt_init(cfg, typed)]
        take_ratio_0_as_plain_clip(cfg)
        return found + problems(cfg)

    cfg = _checked(words, conf_dir(), check)
    # Entry points load plugins that cfg.plugins does not name. Record them, so that a machine without them can say what is missing.
    cfg.plugins += [module for module in modules_of_entries(cfg) if not any(f"{module}.".startswith(f"{own}.") for own in cfg.plugins)]
    return cfg


def unused_words(overrides: Sequence[str]) -> set[str]:
    """The overrides without an effect in the configuration that all of them give; none if they give no valid configuration."""
    words = _understood(overrides, conf_dir())
    try:
        cfg = _compose(words, conf_dir())
    except REFUSALS:
        return set()
    return {given for given, word in zip(overrides, words, strict=True) if not is_used(cfg, _key(word))}


def tasks_override(word: str, *, choices: bool = True) -> str:
    """Translate ``evaluation=[retrieval,grounding]`` to ``evaluation.tasks=...``. Other words are returned unchanged.

    Args:
        choices: ``evaluation=NAME`` may be the name of a file in ``conf/evaluation``; then only evaluators' names and lists are translated.
    """
    key, _, value = word.partition("=")
    names = [name.strip() for name in value.strip("[]").split(",")]
    is_list = key == "evaluation" and (not choices or value.startswith("[") or set(names) <= set(EVALUATORS.names()))
    return f"evaluation.tasks=[{','.join(names)}]" if is_list else word


def recompose(saved: Path, overrides: Sequence[str] = ()) -> RootConfig:
    """The configuration in a run's ``config.yaml`` with ``overrides``, for an evaluation. Options that only training uses are not checked.

    Raises:
        RunError: there is no such file, or it cannot be read.
        ConfigError: overrides that cannot be parsed, do not fit the schema, are only for training or have no effect; unknown evaluation
            tasks; missing plugins.
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
    """A problem for each override of an option that only training uses."""
    options = {word: schema_options().get(_key(word)) for word in words}
    return [
        f"{word}: has no effect in an evaluation; remove it"
        for word, option in options.items()
        if option is not None and not option.facts.in_evaluation
    ]


def _understood(overrides: Sequence[str], folder: Path) -> list[str]:
    """Import the plugins that the overrides name, then translate the overrides to Hydra's syntax.

    Raises:
        ConfigError: a plugin cannot be imported.
    """
    load_named_plugins(overrides, folder)
    return [_option_override(tasks_override(word)) for word in overrides]


def load_named_plugins(overrides: Sequence[str], folder: Path | None = None) -> None:
    """Import the plugins that the overrides name, or the experiment that they choose.

    Args:
        folder: that of ``config.yaml``; None: timix-pl's own.
    Raises:
        ConfigError: a plugin cannot be imported.
    """
    naming = [word for word in overrides if _key(word) in ("plugins", "experiment", "hydra.searchpath")]
    if any(_key(word) != "experiment" for word in naming):
        with suppress(*REFUSALS):  # problems of these words are reported later, when all overrides are composed
            load_plugins(_compose(naming, folder or conf_dir()).plugins)


def _option_override(word: str) -> str:
    """Put ``++`` before ``mixing.options.NAME=...``, because it adds a key to a dictionary."""
    return f"++{word}" if re.match(r"\w+\.options\.", word) else word


def _of_files(words: Sequence[str]) -> RootConfig:
    """The configuration from the files only: with the experiment, without the other overrides."""
    return _compose([word for word in words if _key(word) in ("experiment", "hydra.searchpath")], conf_dir())


def _adding(stored: Any, override: str) -> str:
    """The override, with ``++`` if its key is missing in the stored configuration because an older version wrote it."""
    section, _, name = _key(override).rpartition(".")
    stored = OmegaConf.select(stored, section) if section else stored
    return f"++{override}" if _key(override) in schema_options() and name not in (stored or {}) else override


def to_root(cfg: DictConfig) -> RootConfig:
    """Convert a composed configuration to the schema's dataclasses, with interpolations resolved.

    Raises:
        OmegaConfBaseException: a key is not in the schema, or a value has a wrong type.
    """
    checked = OmegaConf.merge(_schema(), OmegaConf.to_container(cfg, resolve=True))
    root: RootConfig = OmegaConf.to_object(checked)  # type: ignore[assignment]
    return root


def search_path_override(config_dir: str) -> str:
    """The override that adds the YAML files of ``config_dir`` to those of timix-pl.

    Raises:
        ConfigError: ``config_dir`` is not a folder.
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
    """The schema, registered with Hydra as the start of ``conf/config.yaml``."""
    # Cached, because building it takes a tenth of the time of a composition.
    schema = OmegaConf.structured(RootConfig)
    ConfigStore.instance().store(name="schema", node=schema)
    return schema


def _compose(overrides: Iterable[str], folder: Path) -> RootConfig:
    _schema()  # registers the schema with Hydra
    overrides = list(overrides)
    with initialize_config_dir(config_dir=str(folder.resolve()), version_base="1.3"):
        try:
            cfg = to_root(hydra_compose("config", overrides))
        except MissingConfigException:
            _store_choices_of_plugins()
            cfg = to_root(hydra_compose("config", overrides))
    choose_teaching(cfg)  # here, because whether options have an effect depends on it
    return cfg


def _store_choices_of_plugins() -> None:
    """Give Hydra, for each choice of a plugin, what a file ``conf/GROUP/NAME.yaml`` would contain."""
    for group, registry in GROUPS.items():
        for name in registry.names():
            if registry.plugin_of(name) is not None:
                content: dict[str, Any] = {group: {"kind": name}}
                if group == "mixing" and not registry[name].needs_scores:
                    content["pta"] = {"enabled": False}
                ConfigStore.instance().store(group=group, name=name, node=content, package="_global_")


def _all_problems(overrides: Sequence[str], folder: Path, check: Callable[[RootConfig], list[str]]) -> list[str]:
    """The problems of each override by itself, and those of the configuration that the valid ones give.

    A wrong experiment or task could have set any option. Then only the wrong overrides are reported, because any further problem might
    only follow from them.
    """
    search_path = [override for override in overrides if override.startswith("hydra.searchpath=")]
    good, found, bad_keys = [], [], []
    for override in overrides:
        try:
            _compose({*search_path, override}, folder)
            good.append(override)
        except REFUSALS as error:
            found.append(_message(override, error) + _plugin_hint(override, error, overrides, folder))
            bad_keys.append(_key(override))
    if {"experiment", "task"} & set(bad_keys):
        return found
    try:
        follows = _follows_from(bad_keys, {_key(override) for override in good})
        return found + [problem for problem in check(_compose(good, folder)) if not follows(problem)]
    except REFUSALS as error:
        return [*found, _message(" ".join(good), error)]


def _plugin_hint(override: str, error: Exception, overrides: Sequence[str], folder: Path) -> str:
    """The end of the message about a choice that a plugin may have."""
    if not isinstance(error, MissingConfigException) or _key(override) not in GROUPS:
        return ""
    hint = "; ".join([", or name the plugin that has it with plugins=[MODULE]", *load_installed_plugins()])
    with suppress(*REFUSALS):
        run_dir = _compose(
            [word for word in overrides if _key(word) in ("name", "run_dir", "experiment", "hydra.searchpath")], folder
        ).run_dir
        hint += plugins_of_run(run_dir)
    return hint


def _follows_from(bad_keys: Sequence[str], good_keys: Set[str]) -> Callable[[str], bool]:
    """A test whether a problem may only follow from a wrong override: it names a key that the override sets or could have set."""
    # A wrong choice (model=...) or an unknown key could have set any option of its section.
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
        return f"{override}: the file is not valid YAML: {' '.join(str(error).split())}"
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
            return f"{override}: the file must begin with the line '# @package _global_', so that its keys count from the root"
        if option is None:
            return f"{override}: there is no key {name}{nearest(name, schema_options())}; docs/configuration.md lists all keys"
        return f"{override}: {name} takes {option.takes}; the default is {option.default_text}"
    return f"{override}: {str(cause).splitlines()[0]}"
