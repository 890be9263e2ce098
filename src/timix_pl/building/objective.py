"""From the configuration to the loss."""

from timix_pl.building.entries import create
from timix_pl.config.schema import RootConfig
from timix_pl.core.choices import LOSSES
from timix_pl.training.objective import Objective


def build_objective(cfg: RootConfig) -> Objective:
    """The loss."""
    return Objective(
        loss=create(cfg, LOSSES, cfg.loss.kind),
        negatives=cfg.loss.negatives,
        targets=cfg.mixing.targets,
        pta_weight=cfg.pta.weight,
        tile_rows=cfg.loss.tile_rows,
    )
