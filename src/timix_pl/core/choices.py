"""The registries of all choices. An entry is a module of the package named here, or comes from a plugin."""

from timix_pl.core.registry import Registry

MIXERS = Registry("mixing.kind", "mixing strategy", "timix_pl.mixing.strategies", none="none")
LOSSES = Registry("loss.kind", "contrastive loss", "timix_pl.losses.contrastive")
LOSS_TERMS = Registry("loss.terms", "loss term", "timix_pl.losses.terms")
OPTIMIZERS = Registry("optim.kind", "optimizer", "timix_pl.optim.optimizers")
SCHEDULES = Registry("optim.schedule", "learning rate schedule", "timix_pl.optim.schedules")
EVALUATORS = Registry("evaluation.tasks", "evaluation", "timix_pl.evaluation.evaluators")
LOGGERS = Registry("logger.kind", "logger", "timix_pl.training.loggers")
CALLBACKS = Registry("trainer.callbacks", "callback")
TASKS = Registry("task", "task", "timix_pl.building.tasks")
EXPORT_FORMATS = Registry("format", "export format", "timix_pl.export.formats")
LAYOUTS = Registry("timix-data", "layout", "data_pipelines.layouts")

ALL = (MIXERS, LOSSES, LOSS_TERMS, OPTIMIZERS, SCHEDULES, EVALUATORS, LOGGERS, CALLBACKS, TASKS, EXPORT_FORMATS, LAYOUTS)
