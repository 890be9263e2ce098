"""Options that others decide."""

from timix_pl.config.schema import DataKind, PtaTeacher, RootConfig
from timix_pl.config.schema_options import schema_options


def take_ratio_0_as_plain_clip(cfg: RootConfig) -> None:
    """Replace ``mixing.ratio=0`` by ``mixing=none``, so that a sweep over the ratio can include plain CLIP."""
    if cfg.mixing.kind != "none" and cfg.mixing.ratio == 0:
        cfg.mixing.kind, cfg.pta.enabled = "none", False


def choose_teacher(cfg: RootConfig) -> None:
    """Replace ``pta.teacher=null`` by what it means: boxes if there are region shards, else mixing."""
    if cfg.pta.teacher is None and schema_options()["pta.teacher"].unmet(cfg) is None:
        has_boxes = cfg.data.region_shards is not None or cfg.data.kind is DataKind.scenes
        cfg.pta.teacher = PtaTeacher.boxes if has_boxes or cfg.mixing.kind == "none" else PtaTeacher.mixing
