"""From the configuration to the mixing callback."""

from timix_pl.config.schema import MixingKind, RootConfig
from timix_pl.core.errors import ConfigError
from timix_pl.mixing.cutmix import CutMix
from timix_pl.mixing.mixgen import MixGen
from timix_pl.mixing.mixup import Mixup
from timix_pl.mixing.step import Mixer
from timix_pl.mixing.timix import TiMix
from timix_pl.mixing.windows import side_range
from timix_pl.training.callbacks.mixing import MixingCallback


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
