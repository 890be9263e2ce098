"""Build the mixing callback from the configuration."""

from timix_pl.building.entries import create
from timix_pl.config.schema import RootConfig
from timix_pl.config.validate import mixes, mixing_teaches
from timix_pl.core.choices import MIXERS
from timix_pl.core.errors import ConfigError
from timix_pl.training.callbacks.mixing import MixingCallback


def build_mixing(cfg: RootConfig, patch_grid: tuple[int, int]) -> MixingCallback | None:
    """The mixing callback, or None for plain CLIP.

    Raises:
        ConfigError: the strategy refuses its options.
        ShapeError: the patch grid is too small for the windows.
    """
    if not mixes(cfg):
        return None
    mixing = cfg.mixing
    return MixingCallback(
        create(cfg, MIXERS, mixing.kind, patch_grid),
        ratio=mixing.ratio,
        compute=mixing.compute,
        gamma=mixing.gamma,
        warmup_frac=mixing.warmup_frac,
        stop_frac=mixing.stop_frac,
        group_size=mixing.group_size,
        first_samples=cfg.pta.first_samples,
        first_frac=cfg.pta.first_frac,
        teaches=mixing_teaches(cfg),
        mosaic_frac=cfg.pta.mosaic_frac if mixing_teaches(cfg) else 0.0,
    )


def check_mixing_happens(cfg: RootConfig, mixing: MixingCallback | None, max_steps: int) -> None:
    """Check that the mixing strategy starts before mixing ends.

    Raises:
        ConfigError: it does not.
    """
    planned = max_steps * cfg.data.global_batch_size
    if mixing is not None and mixing.first(planned) >= mixing.stop_frac * planned:
        by_share = mixing.first_frac * planned >= mixing.first_samples
        key, value = ("pta.first_frac", mixing.first_frac) if by_share else ("pta.first_samples", mixing.first_samples)
        raise ConfigError(
            [
                f"{key}={value:g}, mixing.stop_frac={mixing.stop_frac:g}: the strategy starts after {mixing.first(planned):.0f} samples, "
                f"but mixing ends after {mixing.stop_frac * planned:.0f}; lower {key}"
            ]
        )
