"""From the configuration to the loss."""

from timix_pl.config.schema import RootConfig
from timix_pl.training.objective import Objective


def build_objective(cfg: RootConfig) -> Objective:
    """The loss."""
    return Objective(
        loss=cfg.loss.kind,
        negatives=cfg.loss.negatives,
        targets=cfg.mixing.targets,
        pta_weight=cfg.pta.weight,
        tile_rows=cfg.loss.tile_rows,
    )
