"""Build data from the configuration: prepared shards, sample streams, and evaluation sets."""

import json
import logging
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from timix_pl.config.schema import DataKind, Prepare, Remote, RootConfig
from timix_pl.core.randomness import seed_of
from timix_pl.data.images.training_images import Augmentation
from timix_pl.data.remote.remote_tar import RemoteAccess
from timix_pl.data.sets.evaluation_set import EvaluationSet
from timix_pl.data.sets.image_folder import ImageFolder
from timix_pl.data.sets.sample_stream import SampleStream
from timix_pl.data.shards.sources import is_image_folder
from timix_pl.models.fine_tuned import AnyModel

log = logging.getLogger(__name__)


def prepare_data(cfg: RootConfig) -> None:
    """Make the data that the configuration needs: scenes, or shards from published files. For scenes, also set ``data.*_shards``."""
    data = cfg.data
    if data.kind == DataKind.scenes:
        from timix_pl.scenes.make import make_scenes

        parameters: dict[str, Any] = OmegaConf.to_container(OmegaConf.structured(data.scenes))  # type: ignore[assignment]
        folder = Path(data.cache_dir) / f"scenes-{seed_of(json.dumps(parameters, sort_keys=True)) & 0xFFFFFFFF:08x}"
        make_scenes(folder, **parameters)
        for key, split in (("train", "train"), ("val", "val"), ("region", "regions"), ("zero_shot", "zero_shot")):
            if getattr(data, f"{key}_shards") is None:  # timix-evaluate may have set other data
                setattr(data, f"{key}_shards", str(folder / split))
    elif data.prepare is not None:
        from data_pipelines import prepare_flickr8k, prepare_visual7w

        prepare = {Prepare.flickr8k: prepare_flickr8k, Prepare.visual7w: prepare_visual7w}[data.prepare]
        prepare(cfg.real_data_dir, data.cache_dir)


def remote_access(cfg: RootConfig) -> RemoteAccess:
    """How shards at URLs are read."""
    data = cfg.data
    cache_dir = Path(data.shard_cache_dir) if data.shard_cache_dir is not None else Path(data.cache_dir) / "shards"
    return RemoteAccess(cache_dir.absolute(), int(data.shard_cache_gb * 1e9), data.remote == Remote.cache)


def build_stream(cfg: RootConfig, name: str) -> SampleStream:
    """The sample stream of ``data.NAME_shards``. Logs how many entries of the shards its index leaves out."""
    key = f"data.{name}_shards"
    stream = SampleStream(
        getattr(cfg.data, f"{name}_shards"),
        key=key,
        seed=cfg.seed,
        name=name,
        window_shards=cfg.data.shuffle_window_shards,
        max_image_mb=cfg.data.max_image_mb,
        access=remote_access(cfg),
    )
    if stream.num_problems:
        log.warning(
            "%s: %d entries of the shards are left out (samples without an image, repeated files, truncated tars); "
            "'timix-data index SHARDS' lists them",
            key,
            stream.num_problems,
        )
    return stream


def loading_options(cfg: RootConfig) -> dict[str, Any]:
    """Options of the data module."""
    data = cfg.data
    return {
        "global_batch_size": data.global_batch_size,
        "seed": cfg.seed,
        "num_workers": data.num_workers,
        "prefetch_batches": data.prefetch_batches,
        "allow_changed": data.allow_changed,
    }


def batch_options(cfg: RootConfig, model: AnyModel) -> dict[str, Any]:
    """Options of :class:`timix_pl.data.sets.step_set.StepSet` that are the same for all tasks."""
    augmentation = cfg.data.augmentation
    return {
        "global_batch_size": cfg.data.global_batch_size,
        "seed": cfg.seed,
        "image_size_px": model.image_size_px,
        "patch_grid": model.patch_grid,
        "augmentation": Augmentation(
            tuple(augmentation.scale),  # type: ignore[arg-type]
            tuple(augmentation.ratio),  # type: ignore[arg-type]
            augmentation.flip,
            tuple(augmentation.color_jitter),  # type: ignore[arg-type]
            augmentation.color_jitter_prob,
            augmentation.gray_prob,
        ),
        "max_image_px": cfg.data.max_image_px,
    }


def num_steps(cfg: RootConfig, num_pairs: int) -> int:
    """Steps of the run: ``max_steps``, or ``max_epochs`` epochs of ``data.epoch_samples`` (by default ``num_pairs``) samples."""
    epochs, epoch_samples = cfg.trainer.max_epochs or 0.0, cfg.data.epoch_samples or num_pairs
    return cfg.trainer.max_steps or max(1, round(epochs * epoch_samples / cfg.data.global_batch_size))


def evaluation_set(cfg: RootConfig, name: str, model: AnyModel) -> EvaluationSet | None:
    """The samples of ``data.NAME_shards``, or None if that is not set."""
    shards = getattr(cfg.data, f"{name}_shards")
    if shards is None:
        return None
    return EvaluationSet(
        shards,
        model.image_size_px,
        key=f"data.{name}_shards",
        max_image_px=cfg.data.max_image_px,
        max_image_mb=cfg.data.max_image_mb,
        access=remote_access(cfg),
    )


def labelled_set(cfg: RootConfig, name: str, model: AnyModel) -> EvaluationSet | ImageFolder | None:
    """Like ``evaluation_set``, for labelled images, which may also be a folder with one sub-folder per class."""
    shards = getattr(cfg.data, f"{name}_shards")
    if not is_image_folder(shards):
        return evaluation_set(cfg, name, model)
    return ImageFolder(
        shards,
        model.image_size_px,
        key=f"data.{name}_shards",
        max_image_px=cfg.data.max_image_px,
        max_image_mb=cfg.data.max_image_mb,
    )
