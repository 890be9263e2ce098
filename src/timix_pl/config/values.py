"""A configuration as plain values, and the name of a run."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from timix_pl.config.schema import RootConfig


def run_name(cfg: RootConfig, run_dir: Path | None = None) -> str:
    """The name of a run in reports, exports and loggers: ``cfg.name``, or the folder's name if ``cfg.name`` is the default.

    Args:
        run_dir: where the run's folder is now, if it was moved.
    """
    return Path(run_dir or cfg.run_dir).resolve().name if cfg.name == "run" else cfg.name


def flat(cfg: RootConfig) -> dict[str, Any]:
    """The configuration as a dictionary of dotted keys and plain values. Empty dictionaries are left out."""

    def walk(node: Any, prefix: str) -> dict[str, Any]:
        if not isinstance(node, dict):
            return {prefix: node}
        return {key: value for name, child in node.items() for key, value in walk(child, f"{prefix}.{name}" if prefix else name).items()}

    return walk(OmegaConf.to_container(OmegaConf.structured(cfg), enum_to_str=True), "")


def plain(cfg: RootConfig) -> dict[str, Any]:
    """The configuration as nested dictionaries of plain values."""
    return OmegaConf.to_container(OmegaConf.structured(cfg), enum_to_str=True)  # type: ignore[return-value]
