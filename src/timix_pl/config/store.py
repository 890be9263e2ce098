"""Where the configuration comes from: the schema that Hydra checks against, and the folder of YAML files."""

from pathlib import Path

from hydra.core.config_store import ConfigStore

from timix_pl.config.schema import RootConfig


def register_schema() -> None:
    """Make the typed schema known to Hydra as ``schema``, which ``conf/config.yaml`` starts from."""
    ConfigStore.instance().store(name="schema", node=RootConfig)


def conf_dir() -> Path:
    """The folder of ``config.yaml`` and its groups: inside the package when installed from a wheel, else the repository's."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parents[1] / "conf"
