"""Build the dual encoder from the configuration, and check options against the model."""

import os
import shutil
import sys

import torch

from timix_pl.building.keys import RUN
from timix_pl.config.schema import PtaGrad, RootConfig, Strategy
from timix_pl.config.validate import mixes, mixing_level
from timix_pl.core.choices import LOSSES
from timix_pl.core.errors import ConfigError, in_keys
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.models.fine_tuned import AnyModel


@in_keys(RUN)
def build_model(cfg: RootConfig, device: str = "cpu", *, load_weights: bool = True) -> DualEncoder:
    """Build the dual encoder with its PTA head.

    Args:
        load_weights: load pretrained weights; False if the weights of a checkpoint are loaded afterwards.
    """
    loss = LOSSES[cfg.loss.kind]
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
        pta_grad=cfg.pta.grad or PtaGrad.full,  # null: the head is not trained
        init_logit_scale=cfg.model.init_logit_scale or loss.init_logit_scale,
        max_logit_scale=cfg.model.max_logit_scale,
        init_logit_bias=loss.init_logit_bias,
        mixing_level=mixing_level(cfg.mixing.level) if mixes(cfg) else None,
        patch_dropout=cfg.model.patch_dropout,
        load_weights=load_weights,
        device=device,
    )


def save_memory_and_time(cfg: RootConfig, model: AnyModel) -> None:
    """Switch on gradient checkpointing and compilation, if ``trainer`` sets them. Call it before the model is sharded.

    Raises:
        ConfigError: there is no C++ compiler.
        ModelError: a tower does not support gradient checkpointing.
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


def check_model(cfg: RootConfig, model: torch.nn.Module, num_ranks: int) -> None:
    """Check options that only some models support.

    Raises:
        ConfigError: the model has batch normalisation, whose statistics would change with micro-batches or FSDP; or CPU offloading is on
            with a single process.
    """
    found = []
    if normalises_over_the_batch(model):
        size = cfg.trainer.micro_batch_size
        why = f"model.architecture={cfg.model.architecture} normalises over the batch"
        if size is not None and size < cfg.data.global_batch_size // num_ranks:
            found.append(f"trainer.micro_batch_size={size}: {why}, so splitting the batch would change the training; set it to null")
        if cfg.trainer.strategy == Strategy.fsdp and num_ranks > 1:
            found.append(f"trainer.strategy=fsdp: {why}, and the statistics would differ between ranks; choose trainer=ddp")
    if cfg.trainer.cpu_offload and num_ranks == 1:
        found.append("trainer.cpu_offload=true: has no effect with a single process, which is not sharded; set it to false")
    if found:
        raise ConfigError(found)


def normalises_over_the_batch(model: torch.nn.Module) -> bool:
    """Whether the model has batch normalisation, so that a sample's features depend on the other samples of the batch."""
    return any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in model.modules())
