"""Build the optimizer and the learning rate schedule from the configuration."""

from timix_pl.building.entries import create
from timix_pl.config.schema import RootConfig
from timix_pl.core.choices import OPTIMIZERS, SCHEDULES
from timix_pl.optim.settings import OptimSettings


def build_optim(cfg: RootConfig) -> OptimSettings:
    """The optimizer and its schedule."""
    optim = cfg.optim
    return OptimSettings(
        optimizer=create(cfg, OPTIMIZERS, optim.kind),
        schedule=create(cfg, SCHEDULES, optim.schedule),
        lr=optim.lr,
        weight_decay=optim.weight_decay,
        warmup_frac=optim.warmup_frac,
        clip_grad_norm=optim.clip_grad_norm,
        image_lr_scale=optim.lr_scale.image,
        text_lr_scale=optim.lr_scale.text,
        head_lr_scale=optim.lr_scale.head,
        layer_decay=optim.layer_decay,
        ema=optim.ema,
    )
