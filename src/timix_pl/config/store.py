"""The schema that Hydra checks a configuration against."""

from hydra.core.config_store import ConfigStore

from timix_pl.config.schema import RootConfig


def register_schema() -> None:
    """Make the typed schema known to Hydra as ``schema``, which ``conf/config.yaml`` starts from."""
    ConfigStore.instance().store(name="schema", node=RootConfig)
