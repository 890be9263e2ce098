"""What ``dry_run=true`` prints: the configuration, and the cost of the run."""

from omegaconf import OmegaConf

from timix_pl.building.mixing import build_mixing
from timix_pl.building.model import build_model
from timix_pl.config.schema import RootConfig
from timix_pl.config.validate import is_pretraining
from timix_pl.core.choices import TASKS
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.runs.cost import describe_cost, describe_task_cost


def dry_run(cfg: RootConfig) -> str:
    """Build on the meta device; of the data, at most the manifests are read.

    Returns:
        The configuration, and what a run costs: parameters, FLOPs, memory and time.
    Raises:
        TimixError: the model cannot be built, the windows do not fit its grid, or a manifest is damaged.
    """
    encoder = build_model(cfg, device="meta")
    mixing = build_mixing(cfg, encoder.patch_grid)
    cost = describe_cost(cfg, encoder, mixing) if is_pretraining(cfg) else describe_fine_tuning(cfg, encoder)
    return f"{OmegaConf.to_yaml(OmegaConf.structured(cfg))}\n{cost}"


def describe_fine_tuning(cfg: RootConfig, encoder: DualEncoder) -> str:
    """What a fine-tuning run will cost.

    Args:
        encoder: on the meta device.
    """
    parts = TASKS[cfg.task]
    model, (items, item) = parts.model(cfg, encoder, None), parts.assumed(cfg)
    return describe_task_cost(cfg, model, items, parts.items(cfg, model, {"answers": []}).collate([item])[0])
