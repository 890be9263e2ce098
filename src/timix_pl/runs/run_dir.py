"""A run's folder: which configuration it belongs to, and from which checkpoint a run in it resumes."""

import fcntl
import logging
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from timix_pl.config.entry_options import with_defaults
from timix_pl.config.facts import Resume
from timix_pl.config.saved import read_config, run_dir_of
from timix_pl.config.schema import RootConfig
from timix_pl.config.schema_options import schema_options
from timix_pl.config.validate import is_pretraining, is_used
from timix_pl.core.errors import RunError
from timix_pl.core.files import atomic_path, missing_folders, remove_empty
from timix_pl.core.words import as_typed
from timix_pl.training.callbacks.checkpoints import newest_whole_checkpoint, step_checkpoints
from timix_pl.training.checkpoint_io import plain_values, tidy

log = logging.getLogger(__name__)


@contextmanager
def claimed(cfg: RootConfig) -> Iterator[Path | None]:
    """Lock the run's folder, and find the checkpoint to resume from. Only rank 0, which starts first, checks and locks the folder.

    A folder belongs to a configuration once it has a checkpoint; before that, it holds nothing worth keeping. A start that is refused
    before ``write_config`` leaves no files.

    Yields:
        The checkpoint, or None for a run that starts from the beginning.
    Raises:
        RunError: the folder belongs to another configuration, is in use, or holds a run and ``resume=never``.
    """
    folder = Path(cfg.run_dir)
    if getattr(rank_zero_only, "rank", 0) != 0:
        yield _checkpoint(cfg, folder / "checkpoints")
        return
    made = missing_folders(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: loader processes, which outlive a killed run, would hold it
            if os.fstat(lock.fileno()).st_nlink == 0:
                raise BlockingIOError("another start, which was refused, has just removed the folder")
        except (BlockingIOError, PermissionError):
            raise RunError(f"run_dir={folder}: another process is training there; wait for it, or choose another run_dir") from None
        try:
            if step_checkpoints(folder / "checkpoints"):
                if cfg.resume == "never":
                    raise RunError(
                        f"resume=never, but run_dir={folder} already holds a run; choose another run_dir, or resume=auto to continue it"
                    )
                saved = read_config(folder / "config.yaml")
                if isinstance(saved, str):
                    raise RunError(f"run_dir={folder} has checkpoints, but {saved}; choose another run_dir")
                if listed := _differing(cfg, saved, (Resume.same_run, Resume.same_model)):
                    raise RunError(
                        f"run_dir={folder} belongs to another configuration: {listed}. Choose another run_dir, or set these as they were"
                    )
            tidy(folder / "checkpoints")
            yield _checkpoint(cfg, folder / "checkpoints")
        finally:
            if not (folder / "config.yaml").exists():
                for name in (".lock", ".answers.lock", "answers.json"):
                    (folder / name).unlink(missing_ok=True)
                remove_empty(made)


def write_config(cfg: RootConfig) -> None:
    """Write ``config.yaml``. From then on, the folder belongs to this run."""
    with atomic_path(Path(cfg.run_dir) / "config.yaml") as temporary:
        temporary.write_text(OmegaConf.to_yaml(OmegaConf.structured(cfg)))


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written.

    Raises:
        RunError: it cannot be read, or holds no training state.
    """
    content = plain_values(checkpoint)
    if "timix" not in content or "optimizer_states" not in content:
        raise RunError(
            f"resume={checkpoint}: not a training checkpoint of timix-train (best.ckpt holds only weights); "
            "give a step-*.ckpt file, or start from weights with model.pretrained"
        )
    return content["global_step"]


def _differing(cfg: RootConfig, saved: RootConfig, kept: Collection[Resume]) -> str:
    """The options that must not change but differ from those of the saved run.

    Paths of shards may change; whether the shards are the same is checked by their fingerprint.
    """
    old, new = with_defaults(saved), with_defaults(cfg)
    differing = [key for key in dict.fromkeys([*new, *old]) if _resume(key) in kept and is_used(cfg, key) and old.get(key) != new.get(key)]
    return "; ".join(f"{key}={as_typed(new.get(key))} here, {as_typed(old.get(key))} there" for key in differing)


def _resume(key: str) -> Resume | None:
    """Whether an option may change on resuming. ``SECTION.options.NAME`` follows ``SECTION.options``."""
    options = schema_options()
    option = options.get(key) or options.get(key.partition(".options.")[0] + ".options")
    return option.facts.resume if option else None


def _checkpoint(cfg: RootConfig, folder: Path) -> Path | None:
    if cfg.resume not in ("auto", "never"):
        return _chosen(cfg, Path(cfg.resume), folder)
    checkpoint, broken = newest_whole_checkpoint(folder)
    if broken and checkpoint is None:
        raise RunError(
            f"run_dir={folder.parent}: all of its checkpoints are damaged ({', '.join(path.name for path in broken)}); restore one, "
            "or choose another run_dir to start from the beginning"
        )
    for path in broken:
        log.warning("%s is damaged; the run resumes from %s", path, checkpoint)
    return checkpoint


def _chosen(cfg: RootConfig, checkpoint: Path, folder: Path) -> Path:
    step = step_of(checkpoint)
    saved = read_config(run_dir_of(checkpoint) / "config.yaml")
    if isinstance(saved, RootConfig):
        if listed := _differing(cfg, saved, (Resume.same_model,)):
            raise RunError(f"resume={checkpoint}: it depends on options that its run has set differently: {listed}; set these as they were")
    elif not is_pretraining(cfg):
        raise RunError(f"resume={checkpoint}: {saved}; name a checkpoint in the folder of its run")
    newer = [path.name for path in step_checkpoints(folder) if path.name > f"step-{step:08d}.ckpt"]
    if newer:
        raise RunError(
            f"resume={checkpoint}: run_dir has newer checkpoints ({', '.join(newer)}), which the run would lose or mix up with its own; "
            "set resume=auto to resume from these, or choose another run_dir"
        )
    return checkpoint
