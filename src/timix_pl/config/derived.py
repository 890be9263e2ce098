"""Options that others decide."""

from timix_pl.config.schema import DataKind, PtaGrad, PtaTeacher, RootConfig
from timix_pl.config.schema_options import schema_options


def take_ratio_0_as_plain_clip(cfg: RootConfig) -> None:
    """Replace ``mixing.ratio=0`` by ``mixing=none``, so that a sweep over the ratio can include plain CLIP."""
    if cfg.mixing.kind != "none" and cfg.mixing.ratio == 0:
        cfg.mixing.kind, cfg.pta.enabled = "none", False


def choose_teaching(cfg: RootConfig) -> None:
    """Replace null in ``pta.teacher`` and ``pta.grad`` by what it means in a run that trains the PTA head."""
    if schema_options()["pta.teacher"].unmet(cfg) is not None:
        return
    if cfg.pta.teacher is None:
        has_boxes = cfg.data.region_shards is not None or cfg.data.kind is DataKind.scenes
        cfg.pta.teacher = PtaTeacher.boxes if has_boxes or cfg.mixing.kind == "none" else PtaTeacher.mixing
    if cfg.pta.grad is None:
        cfg.pta.grad = PtaGrad.trunk if cfg.pta.teacher is PtaTeacher.mixing else PtaGrad.full
