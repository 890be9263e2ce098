"""Derive devices, ranks and precision from the configuration."""

from typing import Any

import torch
from lightning.pytorch.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy

from timix_pl.config.schema import Accelerator, Precision, RootConfig, Strategy
from timix_pl.config.validate import batch_problems
from timix_pl.core.errors import ConfigError
from timix_pl.core.launched import launched
from timix_pl.training.peak_flops import peak_flops
from timix_pl.training.sharding import ShardedStrategy


def check_batches(cfg: RootConfig, num_ranks: int) -> None:
    """Check batch sizes and group sizes, now that the number of ranks is known.

    Raises:
        ConfigError: a size does not divide evenly among the ranks, or is too small.
    """
    if found := list(batch_problems(cfg, num_ranks)):
        raise ConfigError(found)


def num_devices(cfg: RootConfig) -> int:
    """Processes on this machine."""
    return cfg.trainer.devices or (max(1, torch.cuda.device_count()) if on_gpu(cfg) else 1)


def on_gpu(cfg: RootConfig) -> bool:
    """Whether the run uses GPUs."""
    return cfg.trainer.accelerator == Accelerator.gpu or (cfg.trainer.accelerator == Accelerator.auto and torch.cuda.is_available())


def precision_of(cfg: RootConfig) -> Precision:
    """The precision of a run. ``auto`` is bf16_mixed on GPUs that support it, else fp32.

    Older GPUs only emulate bf16, which is slower than fp32. CPUs use fp32 even if they have bf16 instructions, because the gain depends on
    the model.
    """
    if cfg.trainer.precision != Precision.auto:
        return cfg.trainer.precision
    has_bf16 = on_gpu(cfg) and torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return Precision.bf16_mixed if has_bf16 else Precision.fp32


def build_strategy(cfg: RootConfig, num_ranks: int) -> Any:
    """Lightning's strategy for several ranks; ``auto`` for one."""
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
    """Lightning's name for the precision of a run."""
    precision = precision_of(cfg)
    # FSDP2 casts the weights itself (ShardedStrategy's param_dtype), so Lightning must not.
    if precision == Precision.bf16_mixed and cfg.trainer.strategy == Strategy.fsdp and num_ranks > 1:
        precision = Precision.fp32
    return {Precision.fp32: "32-true", Precision.bf16_mixed: "bf16-mixed", Precision.bf16_pure: "bf16-true"}[precision]


def device_peak_flops(cfg: RootConfig) -> float | None:
    """Peak FLOP/s of one device; None if unknown."""
    if cfg.trainer.peak_tflops is not None:
        return cfg.trainer.peak_tflops * 1e12
    if not on_gpu(cfg) or not torch.cuda.is_available():
        return None
    return peak_flops(torch.device("cuda"), bf16=precision_of(cfg) != Precision.fp32)


def cluster_environment() -> ClusterEnvironment:
    """Lightning's environment for the launcher that started this process."""
    # Chosen here, because Lightning would take any process inside a SLURM job for one that srun started.
    started = launched()
    if started is None:
        return LightningEnvironment()
    return TorchElasticEnvironment() if started.by == "torchrun" else SLURMEnvironment(auto_requeue=False)
