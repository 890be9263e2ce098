"""A configuration as plain values, and what a run is called."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from timix_pl.config.schema import RootConfig


def run_name(cfg: RootConfig, run_dir: Path | None = None) -> str:
    """What a run is called wherever it is named: its name, or its folder's (``run_dir``, if moved) where it has the default one."""
    return Path(run_dir or cfg.run_dir).resolve().name if cfg.name == "run" else cfg.name


def flat(cfg: RootConfig) -> dict[str, Any]:
    """The configuration as dotted keys."""

    def walk(node: Any, prefix: str) -> dict[str, Any]:
        if not isinstance(node, dict) or not node:
            return {prefix: node}
        return {key: value for name, child in node.items() for key, value in walk(child, f"{prefix}.{name}" if prefix else name).items()}

    return walk(OmegaConf.to_container(OmegaConf.structured(cfg), enum_to_str=True), "")


def plain(cfg: RootConfig) -> dict[str, Any]:
    """The configuration as nested dictionaries of numbers and texts."""
    return OmegaConf.to_container(OmegaConf.structured(cfg), enum_to_str=True)  # type: ignore[return-value]
