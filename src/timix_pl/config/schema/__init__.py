"""The typed configuration: every key that users can set, with its type, default, help text and rules.

Plain dataclasses, one file per group. Hydra reads them, and ``docs/configuration.md`` is generated from them.
Fractions of the run (``*_frac``) count the samples that were planned at the first start. ``None`` means "derived from the other options".
"""

from timix_pl.config.schema.data import AugmentationConfig, DataConfig, DataKind, Prepare, Remote, ScenesConfig
from timix_pl.config.schema.evaluation import EvaluationConfig, Weights
from timix_pl.config.schema.launcher import LauncherConfig, LauncherKind
from timix_pl.config.schema.loss import LossConfig, Negatives
from timix_pl.config.schema.mixing import Compute, Lam, MixingConfig, Targets
from timix_pl.config.schema.model import ModelConfig, PtaConfig, PtaGrad, PtaTeacher
from timix_pl.config.schema.optim import LrScaleConfig, OptimConfig
from timix_pl.config.schema.root import RootConfig
from timix_pl.config.schema.tasks import CaptioningConfig, TuneConfig, TunedTowers, VqaConfig, VqaKind
from timix_pl.config.schema.trainer import (
    Accelerator,
    CheckpointConfig,
    LoggerConfig,
    Mode,
    NonFinite,
    PicturesConfig,
    Precision,
    Strategy,
    TrainerConfig,
)

__all__ = [
    "Accelerator",
    "AugmentationConfig",
    "CaptioningConfig",
    "CheckpointConfig",
    "Compute",
    "DataConfig",
    "DataKind",
    "EvaluationConfig",
    "Lam",
    "LauncherConfig",
    "LauncherKind",
    "LoggerConfig",
    "LossConfig",
    "LrScaleConfig",
    "MixingConfig",
    "Mode",
    "ModelConfig",
    "Negatives",
    "NonFinite",
    "OptimConfig",
    "PicturesConfig",
    "Precision",
    "Prepare",
    "PtaConfig",
    "PtaGrad",
    "PtaTeacher",
    "Remote",
    "RootConfig",
    "ScenesConfig",
    "Strategy",
    "Targets",
    "TrainerConfig",
    "TuneConfig",
    "TunedTowers",
    "VqaConfig",
    "VqaKind",
    "Weights",
]
