"""What ``dry_run=true`` prints: the configuration and the estimated cost of the run."""

from omegaconf import OmegaConf

from timix_pl.building.keys import RUN
from timix_pl.building.mixing import build_mixing, check_mixing_happens
from timix_pl.building.model import build_model
from timix_pl.config.schema import RootConfig
from timix_pl.core.choices import TASKS
from timix_pl.core.errors import in_keys
from timix_pl.runs.cost import describe_cost


@in_keys(RUN)
def dry_run(cfg: RootConfig) -> str:
    """Describe a run without training. The model is built on the meta device; of the data, only manifests are read.

    Returns:
        The configuration as YAML, then parameters, FLOPs, memory and time.
    Raises:
        TimixError: the model cannot be built, the windows do not fit its grid, or a manifest is damaged.
    """
    task = TASKS[cfg.task](cfg)
    model = task.model(build_model(cfg, device="meta"), None)
    task.objective(model)
    mixing = build_mixing(cfg, model.patch_grid)
    if cfg.trainer.max_steps is not None:
        check_mixing_happens(cfg, mixing, cfg.trainer.max_steps)
    cost = describe_cost(task, model, mixing)
    return f"{OmegaConf.to_yaml(OmegaConf.structured(cfg))}\n{cost}"
