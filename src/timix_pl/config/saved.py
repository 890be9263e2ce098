"""How a fine-tuning run takes the model's configuration from its pre-training run. The weights follow when the model is built."""

from collections.abc import Set
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from timix_pl.config.derived import choose_teaching
from timix_pl.config.facts import value_of
from timix_pl.config.schema import RootConfig
from timix_pl.config.schema_options import schema_options
from timix_pl.core.files import nearest_path
from timix_pl.core.plugins import load_plugins
from timix_pl.core.words import as_typed


def run_dir_of(checkpoint: Path) -> Path:
    """The run directory, given a run directory or one of its checkpoints."""
    return checkpoint if checkpoint.is_dir() and checkpoint.suffix != ".ckpt" else checkpoint.parent.parent


def pretrained_run_of(cfg: RootConfig) -> str:
    """What to name instead of a fine-tuned run, for an error message."""
    return "a pre-training run" if cfg.init is None else f"the run that it started from, init={cfg.init}"


def adopt_init(cfg: RootConfig, typed: Set[str]) -> list[str]:
    """Copy the options that describe the model of ``cfg.init`` into ``cfg``, so that the run can be resumed and evaluated without ``init``.

    Args:
        typed: keys and groups on the command line. An option of the model that is typed must agree with the run of ``init``.
    Returns:
        The problems, one message each.
    Raises:
        ConfigError: a plugin of the pre-training run is missing.
    """
    if cfg.init is None or cfg.task == "pretrain":
        return []
    saved = _saved(cfg)
    if isinstance(saved, str):
        return [saved]
    if saved.task != "pretrain":
        return [f"init={cfg.init}: a run with task={saved.task}; a task starts from a pre-training run, or from model.pretrained"]
    found = [
        f"{key}={as_typed(value_of(cfg, key))}: of the model of init={cfg.init} it is {as_typed(value_of(saved, key))}; leave it out"
        for key in _contradicted(cfg, saved, typed)
    ]
    for key in _of_model():
        section, _, name = key.rpartition(".")
        setattr(value_of(cfg, section), name, value_of(saved, key))
    load_plugins(saved.plugins, f"init={cfg.init}: plugins")
    cfg.plugins += [module for module in saved.plugins if module not in cfg.plugins]
    return found


def _saved(cfg: RootConfig) -> RootConfig | str:
    """The configuration of the run that ``init`` names, or a message why there is none."""
    assert cfg.init is not None
    path = Path(cfg.init)
    own = read_config(Path(cfg.run_dir) / "config.yaml")
    # A resumed run has copied the model's options before, so it does not need the folder of init any more.
    if isinstance(own, RootConfig) and own.init == cfg.init and not path.exists():
        own.task = "pretrain"
        return own
    if not path.exists():
        return f"init={cfg.init}: there is no such run directory or checkpoint. {nearest_path(path)}"
    found = read_config(run_dir_of(path) / "config.yaml")
    if isinstance(found, str):
        return (
            f"init={cfg.init}: {found}; name a run directory of timix-train or a checkpoint in one. Weights from elsewhere are "
            "model.pretrained, with their model.architecture"
        )
    return found


def read_config(path: Path) -> RootConfig | str:
    """The configuration in a ``config.yaml``, or a message why it cannot be read."""
    if not path.is_file():
        return f"there is no {path}"
    try:
        root: RootConfig = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RootConfig), OmegaConf.load(path)))  # type: ignore[assignment]
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        return f"{path} cannot be read: {str(error).splitlines()[0]}"
    choose_teaching(root)  # a run of an earlier version has not stored it
    return root


def plugins_of_run(run_dir: str) -> str:
    """The end of a message about an unknown entry: the plugins of the run in that folder. Empty if there are none."""
    saved = read_config(Path(run_dir) / "config.yaml")
    return "" if isinstance(saved, str) or not saved.plugins else f"; {run_dir}/config.yaml has plugins={as_typed(saved.plugins)}"


def _contradicted(cfg: RootConfig, saved: RootConfig, typed: Set[str]) -> list[str]:
    """Options of the model that the command line sets to other values. ``model=small`` counts as setting ``model``'s first key."""
    chosen: dict[str, str] = {}
    for key in _of_model():
        chosen.setdefault(key.partition(".")[0], key)
    said = [key for key in _of_model() if key in typed or (key in chosen.values() and key.partition(".")[0] in typed)]
    return [key for key in said if value_of(cfg, key) != value_of(saved, key)]


def _of_model() -> list[str]:
    return [key for key, option in schema_options().items() if option.facts.of_model]
