"""From the configuration to the parts of a run. Components take plain values; only this file knows the configuration's names."""

import json
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import OmegaConf

from timix_pl.config.schema import Accelerator, DataKind, LossKind, MixingKind, Precision, Prepare, Remote, RootConfig, Strategy
from timix_pl.config.validate import batch_problems, mixing_level
from timix_pl.core.errors import ConfigError, RunError
from timix_pl.core.randomness import seed_of
from timix_pl.data.datamodule import PretrainDataModule
from timix_pl.data.evaluation_set import EvaluationSet
from timix_pl.data.image_folder import ImageFolder
from timix_pl.data.remote import RemoteAccess
from timix_pl.data.resampled import ResampledShards
from timix_pl.data.shards import is_image_folder
from timix_pl.data.training_set import Augmentation, SampleStream
from timix_pl.mixing.cutmix import CutMix
from timix_pl.mixing.mixgen import MixGen
from timix_pl.mixing.mixup import Mixup
from timix_pl.mixing.step import Mixer
from timix_pl.mixing.timix import TiMix
from timix_pl.mixing.windows import side_range
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.models.fine_tuned import AnyModel
from timix_pl.training.callbacks.mixing import MixingCallback
from timix_pl.training.checkpoint_io import read_checkpoint
from timix_pl.training.objective import Objective
from timix_pl.training.peak_flops import peak_flops
from timix_pl.training.sharding import ShardedStrategy

log = logging.getLogger(__name__)


def prepare_data(cfg: RootConfig) -> None:
    """Make what the configuration asks for (scenes, shards of published files) and set the shard keys that follow from it."""
    data = cfg.data
    if data.kind == DataKind.scenes:
        from timix_pl.scenes.make import make_scenes

        parameters: dict[str, Any] = OmegaConf.to_container(OmegaConf.structured(data.scenes))  # type: ignore[assignment]
        folder = Path(data.cache_dir) / f"scenes-{seed_of(json.dumps(parameters, sort_keys=True)) & 0xFFFFFFFF:08x}"
        make_scenes(folder, **parameters)
        for key, split in (("train", "train"), ("val", "val"), ("region", "regions"), ("zero_shot", "zero_shot")):
            if getattr(data, f"{key}_shards") is None:  # an evaluation may have been given other data
                setattr(data, f"{key}_shards", str(folder / split))
    elif data.prepare is not None:
        from data_pipelines import prepare_flickr8k, prepare_visual7w

        prepare = {Prepare.flickr8k: prepare_flickr8k, Prepare.visual7w: prepare_visual7w}[data.prepare]
        prepare(cfg.real_data_dir, data.cache_dir)


def build_model(cfg: RootConfig, device: str = "cpu", *, load_weights: bool = True) -> DualEncoder:
    """The dual encoder with its PTA head; ``load_weights=False`` where a checkpoint's weights follow and pretrained ones are not needed."""
    sigmoid = cfg.loss.kind == LossKind.siglip
    return DualEncoder.create(
        cfg.model.architecture,
        pretrained=cfg.model.pretrained,
        text_model=cfg.model.text_model,
        text_pretrained=cfg.model.text_pretrained,
        image_size_px=cfg.model.image_size_px,
        context_length=cfg.model.context_length,
        pta_block=cfg.pta.block,
        pta_hidden_dim=cfg.pta.hidden_dim,
        with_pta=cfg.pta.enabled,
        pta_grad=cfg.pta.grad,
        init_logit_scale=cfg.model.init_logit_scale or (10.0 if sigmoid else 1 / 0.07),
        max_logit_scale=cfg.model.max_logit_scale,
        init_logit_bias=-10.0 if sigmoid else None,
        mixing_level=mixing_level(cfg.mixing.level) if cfg.mixing.kind != MixingKind.none else None,
        patch_dropout=cfg.model.patch_dropout,
        load_weights=load_weights,
        device=device,
    )


def load_weights(model: torch.nn.Module, path: Path) -> int:
    """Weights of a checkpoint that ``timix-train`` wrote.

    Returns:
        The step after which it was written.
    Raises:
        RunError: it cannot be read, or belongs to another model.
    """
    try:
        checkpoint = read_checkpoint(path, optimizers=False)
        model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in checkpoint["state_dict"].items()})
        return checkpoint["global_step"]
    except (RuntimeError, KeyError, OSError, EOFError) as error:
        reason = " ".join(" ".join(str(error).splitlines()[:2]).split())
        raise RunError(f"{path}: not a checkpoint of this model: {reason}") from error


def load_encoder(cfg: RootConfig, checkpoint: Path) -> tuple[DualEncoder, int]:
    """The dual encoder of a pre-training run as a checkpoint holds it, and the step after which that was written.

    Raises:
        RunError: the checkpoint cannot be read, or belongs to another model.
    """
    encoder = build_model(cfg, load_weights=False)
    return encoder, load_weights(encoder, checkpoint)


def save_memory_and_time(cfg: RootConfig, model: AnyModel) -> None:
    """Gradient checkpointing and compilation of the blocks, as ``trainer`` asks for them; before the model is sharded.

    Raises:
        ConfigError: there is no compiler.
        ModelError: a tower cannot checkpoint.
    """
    if cfg.trainer.gradient_checkpointing:
        model.checkpoint_gradients()
    if cfg.trainer.compile:
        compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
        if shutil.which(compiler) is None:
            raise ConfigError(
                [f"trainer.compile=true: there is no C++ compiler {compiler}; install it, name another in $CXX, or set false"]
            )
        model.compile_blocks()


def build_objective(cfg: RootConfig) -> Objective:
    """The loss."""
    return Objective(
        loss=cfg.loss.kind,
        negatives=cfg.loss.negatives,
        targets=cfg.mixing.targets,
        pta_weight=cfg.pta.weight,
        tile_rows=cfg.loss.tile_rows,
    )


def build_mixing(cfg: RootConfig, patch_grid: tuple[int, int]) -> MixingCallback | None:
    """The mixing callback, or None for plain CLIP.

    Raises:
        ShapeError: the patch grid is too small for the windows.
    """
    mixing = cfg.mixing
    if mixing.kind == MixingKind.none:
        return None
    mixer: Mixer
    if mixing.kind in (MixingKind.timix, MixingKind.cutmix):
        side_range(patch_grid, mixing.min_side, mixing.max_side)
    if mixing.kind == MixingKind.timix:
        mixer = TiMix(patch_grid, min_side=mixing.min_side, max_side=mixing.max_side, lam=mixing.lam)
    elif mixing.kind == MixingKind.cutmix:
        mixer = CutMix(patch_grid, min_side=mixing.min_side, max_side=mixing.max_side)
    elif mixing.kind == MixingKind.mixup:
        mixer = Mixup(beta=mixing.beta)
    else:
        mixer = MixGen()
    return MixingCallback(
        mixer,
        ratio=mixing.ratio,
        compute=mixing.compute,
        gamma=mixing.gamma,
        warmup_frac=mixing.warmup_frac,
        stop_frac=mixing.stop_frac,
        group_size=mixing.group_size,
        first_samples=cfg.pta.first_samples,
    )


def check_batches(cfg: RootConfig, num_ranks: int) -> None:
    """What can only be checked once the number of ranks is known.

    Raises:
        ConfigError: a batch size or group size does not divide, or is too small.
    """
    if found := list(batch_problems(cfg, num_ranks)):
        raise ConfigError(found)


def check_model(cfg: RootConfig, model: torch.nn.Module, num_ranks: int) -> None:
    """What the model rules out.

    Raises:
        ConfigError: batch normalisation, whose statistics are of what goes through at once; offloading without shards.
    """
    found = []
    if normalises_over_the_batch(model):
        size = cfg.trainer.micro_batch_size
        why = f"model.architecture={cfg.model.architecture} normalises over the batch"
        if size is not None and size < cfg.data.global_batch_size // num_ranks:
            found.append(f"trainer.micro_batch_size={size}: {why}, so that chunks would learn something else; set it to null")
        if cfg.trainer.strategy == Strategy.fsdp and num_ranks > 1:
            found.append(f"trainer.strategy=fsdp: {why}, with statistics that would differ between ranks; choose trainer=ddp")
    if cfg.trainer.cpu_offload and num_ranks == 1:
        found.append("trainer.cpu_offload=true: a single process is not sharded, and nothing is offloaded; set it to false")
    if found:
        raise ConfigError(found)


def normalises_over_the_batch(model: torch.nn.Module) -> bool:
    """Whether what a model computes of a sample depends on those beside it."""
    return any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in model.modules())


def check_mixing_happens(cfg: RootConfig, max_steps: int) -> None:
    """A run that is to mix must come to it.

    Raises:
        ConfigError: mixing would end before it starts.
    """
    stop = cfg.mixing.stop_frac * max_steps * cfg.data.global_batch_size
    if cfg.mixing.kind != MixingKind.none and cfg.pta.first_samples >= stop:
        raise ConfigError(
            [
                f"pta.first_samples={cfg.pta.first_samples}: mixing starts after these, but ends after {stop:.0f} samples "
                f"(mixing.stop_frac={cfg.mixing.stop_frac:g} of the run), so that nothing would be mixed; lower it, or train longer"
            ]
        )


def remote_access(cfg: RootConfig) -> RemoteAccess:
    """How shards at URLs are read."""
    data = cfg.data
    cache_dir = Path(data.shard_cache_dir) if data.shard_cache_dir is not None else Path(data.cache_dir) / "shards"
    return RemoteAccess(cache_dir.absolute(), int(data.shard_cache_gb * 1e9), data.remote == Remote.cache)


def build_stream(cfg: RootConfig, name: str) -> SampleStream:
    """The stream of ``data.NAME_shards``; what its index leaves out is counted in the log."""
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
            "%s: %d things in the shards are left out (samples without an image, doubled members, tars cut off); "
            "'timix-data index SHARDS' lists them",
            key,
            stream.num_problems,
        )
    return stream


def build_data(cfg: RootConfig, model: DualEncoder) -> PretrainDataModule:
    """The data module, with the number of steps of the run.

    Raises:
        DataError: missing shards.
    """
    data, pta = cfg.data, cfg.pta
    pairs: SampleStream | ResampledShards
    pairs = (
        ResampledShards(data.train_shards, key="data.train_shards", seed=cfg.seed, access=remote_access(cfg), allow_pipe=data.allow_pipe)
        if data.kind == DataKind.stream
        else build_stream(cfg, "train")
    )
    regions = build_stream(cfg, "region") if pta.enabled else None
    return PretrainDataModule(
        pairs,
        regions,
        model.tokenizer,
        max_steps=num_steps(cfg, pairs.num_samples or 0),
        region_batch_size=pta.batch_size,
        region_every_n_steps=pta.every_n_steps,
        max_phrases=data.max_phrases,
        phrase_template=data.phrase_template,
        min_cover=pta.min_cover,
        negative_frac=pta.negative_frac,
        caption_positive=pta.caption_positive,
        **loading_options(cfg),
        **image_options(cfg, model),
    )


def loading_options(cfg: RootConfig) -> dict[str, Any]:
    """Options that all data modules have."""
    data = cfg.data
    return {
        "global_batch_size": data.global_batch_size,
        "seed": cfg.seed,
        "num_workers": data.num_workers,
        "prefetch_batches": data.prefetch_batches,
        "allow_changed": data.allow_changed,
    }


def image_options(cfg: RootConfig, model: DualEncoder) -> dict[str, Any]:
    """How training images become rows of a batch."""
    augmentation = cfg.data.augmentation
    return {
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
    """Steps of the whole run; ``trainer.max_epochs`` counts passes over ``num_pairs``, or over ``data.epoch_samples``."""
    epochs, epoch_samples = cfg.trainer.max_epochs or 0.0, cfg.data.epoch_samples or num_pairs
    return cfg.trainer.max_steps or max(1, round(epochs * epoch_samples / cfg.data.global_batch_size))


def num_devices(cfg: RootConfig) -> int:
    """Processes on this machine."""
    return cfg.trainer.devices or (max(1, torch.cuda.device_count()) if on_gpu(cfg) else 1)


def evaluation_set(cfg: RootConfig, name: str, model: AnyModel) -> EvaluationSet | None:
    """The samples of ``data.NAME_shards``, or None where that is not set. Grounding falls back to validation shards that have boxes."""
    shards = getattr(cfg.data, f"{name}_shards")
    if shards is None and name == "grounding":
        found = evaluation_set(cfg, "val", model)
        return found if found is not None and found.has_regions() else None
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
    """``evaluation_set`` of labelled images, which may also be a folder whose sub-folders are the classes."""
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


def on_gpu(cfg: RootConfig) -> bool:
    """Whether the run uses GPUs."""
    return cfg.trainer.accelerator == Accelerator.gpu or (cfg.trainer.accelerator == Accelerator.auto and torch.cuda.is_available())


def precision_of(cfg: RootConfig) -> Precision:
    """The precision of a run; ``auto`` takes bf16_mixed on GPUs that compute in it. Older ones only emulate it, slower than fp32.

    CPUs stay with fp32, also those with instructions for bf16: what these gain depends on the model.
    """
    if cfg.trainer.precision != Precision.auto:
        return cfg.trainer.precision
    has_bf16 = on_gpu(cfg) and torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return Precision.bf16_mixed if has_bf16 else Precision.fp32


def build_strategy(cfg: RootConfig, num_ranks: int) -> Any:
    """How several ranks share the work; ``auto`` for one."""
    if num_ranks == 1:
        return "auto"
    if cfg.trainer.strategy == Strategy.ddp:
        return DDPStrategy(gradient_as_bucket_view=True)
    mixed = precision_of(cfg) == Precision.bf16_mixed
    return ShardedStrategy(
        num_ranks,
        sharded_checkpoints=cfg.checkpoint.sharded,
        param_dtype=torch.bfloat16 if mixed else None,
        offload=cfg.trainer.cpu_offload,
    )


def lightning_precision(cfg: RootConfig, num_ranks: int) -> str:
    """Lightning's name for a precision; FSDP2 casts weights itself."""
    precision = precision_of(cfg)
    if precision == Precision.bf16_mixed and cfg.trainer.strategy == Strategy.fsdp and num_ranks > 1:
        precision = Precision.fp32
    return {Precision.fp32: "32-true", Precision.bf16_mixed: "bf16-mixed", Precision.bf16_pure: "bf16-true"}[precision]


def device_peak_flops(cfg: RootConfig) -> float | None:
    """FLOP/s of a device at best, as far as it is known."""
    if cfg.trainer.peak_tflops is not None:
        return cfg.trainer.peak_tflops * 1e12
    if not on_gpu(cfg) or not torch.cuda.is_available():
        return None
    return peak_flops(torch.device("cuda"), bf16=precision_of(cfg) != Precision.fp32)
