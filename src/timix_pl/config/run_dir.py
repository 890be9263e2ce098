"""A run's folder: whose it is, and where a run in it goes on."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from timix_pl.config.schema import RootConfig
from timix_pl.core.errors import RunError
from timix_pl.core.files import atomic_path
from timix_pl.training.callbacks.checkpoints import newest_whole_checkpoint, step_checkpoints

MAY_CHANGE = (
    "run_dir", "resume", "dry_run", "real_data_dir", "checkpoint", "evaluation", "logger", "pictures",
    "data.num_workers", "data.prefetch_batches", "data.cache_dir", "data.allow_changed", "data.max_bad_frac", "data.val_shards",
    "data.zero_shot_shards", "data.grounding_shards", "data.train_shards", "data.region_shards",
    "trainer",
)  # fmt: skip
"""Keys that another start of the same run may set differently. Shards are told apart by their fingerprint, not by their path."""

log = logging.getLogger(__name__)


def flat(cfg: RootConfig) -> dict[str, Any]:
    """The configuration as dotted keys."""

    def walk(node: Any, prefix: str) -> dict[str, Any]:
        if not isinstance(node, dict):
            return {prefix: node}
        return {key: value for name, child in node.items() for key, value in walk(child, f"{prefix}.{name}" if prefix else name).items()}

    return walk(OmegaConf.to_container(OmegaConf.structured(cfg), enum_to_str=True), "")


def claim(cfg: RootConfig) -> Path | None:
    """Write ``config.yaml`` into the run's folder, and find the checkpoint to go on from. Rank 0 checks and writes; it starts first.

    Returns:
        The checkpoint, or None for a run that starts from the beginning.
    Raises:
        RunError: the folder belongs to another configuration, or is in use and ``resume=never``.
    """
    folder = Path(cfg.run_dir)
    saved = folder / "config.yaml"
    if rank_zero_only.rank != 0:
        return _checkpoint(cfg, folder / "checkpoints")
    if saved.exists():
        if cfg.resume == "never":
            raise RunError(f"resume=never, but run_dir={folder} holds a run already; choose another run_dir, or resume=auto to go on")
        _check_same_run(cfg, saved)
    checkpoint = _checkpoint(cfg, folder / "checkpoints")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(saved) as temporary:
        temporary.write_text(OmegaConf.to_yaml(OmegaConf.structured(cfg)))
    return checkpoint


def _check_same_run(cfg: RootConfig, saved: Path) -> None:
    old = flat(OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RootConfig), OmegaConf.load(saved))))  # type: ignore[arg-type]
    new = flat(cfg)
    differing = [key for key in new if old.get(key) != new[key] and not key.startswith(MAY_CHANGE)]
    if differing:
        listed = "; ".join(f"{key}={new[key]} here, {old.get(key)} there" for key in differing)
        raise RunError(
            f"run_dir={saved.parent} belongs to another configuration: {listed}. Choose another run_dir, or set these as they were"
        )


def _checkpoint(cfg: RootConfig, folder: Path) -> Path | None:
    if cfg.resume not in ("auto", "never"):
        chosen = Path(cfg.resume).resolve()
        newer = [path.name for path in step_checkpoints(folder) if path.name > chosen.name] if chosen.parent == folder.resolve() else []
        if newer:
            raise RunError(
                f"resume={cfg.resume}: run_dir has newer checkpoints ({', '.join(newer)}), which a later resume=auto would go on from; "
                "move them away, or choose another run_dir"
            )
        return chosen
    checkpoint, broken = newest_whole_checkpoint(folder)
    for path in broken:
        log.warning("%s cannot be read whole and is passed over; the run goes on from %s", path, checkpoint or "its beginning")
    return checkpoint
