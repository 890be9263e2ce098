"""The whole configuration: the options of the run, and the sections."""

from dataclasses import dataclass

from timix_pl.config.facts import Resume, Unless, When, option, section
from timix_pl.config.rules import NOT_NEGATIVE, TwoSteps
from timix_pl.config.schema.data import DataConfig
from timix_pl.config.schema.evaluation import EvaluationConfig
from timix_pl.config.schema.launcher import LauncherConfig
from timix_pl.config.schema.loss import LossConfig
from timix_pl.config.schema.mixing import MixingConfig
from timix_pl.config.schema.model import ModelConfig, PtaConfig
from timix_pl.config.schema.optim import OptimConfig
from timix_pl.config.schema.tasks import CaptioningConfig, TuneConfig, VqaConfig
from timix_pl.config.schema.trainer import CheckpointConfig, LoggerConfig, PicturesConfig, TrainerConfig
from timix_pl.core.choices import TASKS


@dataclass
class RootConfig:
    """Every option that users can set."""

    name: str = option("run", "Name of the run.")
    seed: int = option(
        0, "Seed of the initial weights, the sample order, augmentation and mixing.", within=NOT_NEGATIVE, on_card=True, frequent=True
    )
    run_dir: str = option("runs/${name}", "Folder for all files that the run writes.", resume=Resume.free, frequent=True)
    resume: str = option(
        "auto",
        "auto: resume from the newest checkpoint in run_dir, if any; never: refuse a run_dir that holds a run; or a checkpoint's path.",
        resume=Resume.free,
        frequent=True,
    )
    dry_run: bool = option(False, "Show the configuration, the model's size and the estimated cost; do not train.", resume=Resume.free)
    profile: list[int] | None = option(
        None,
        "Profile these steps, [first,last] counted from this start, e.g. [10,12]; writes run_dir/profile.",
        within=TwoSteps(),
        resume=Resume.free,
    )
    plugins: list[str] = option(
        [],
        "Python modules that add mixing strategies, losses, optimizers, evaluations and more; see docs/plugins.md.",
        resume=Resume.free,
        in_evaluation=True,
    )
    task: str = option(
        "pretrain",
        "pretrain: contrastive pre-training; vqa or captioning: fine-tuning of a pre-trained model.",
        registry=TASKS,
        resume=Resume.same_model,
    )
    init: str | None = option(
        None, "task=vqa or captioning: run directory or checkpoint of the pre-training run whose model, weights and settings to start from."
    )
    real_data_dir: str | None = option(
        None,
        "Folder of published data sets, for experiments that read them; null: $TIMIX_REAL_DATA.",
        resume=Resume.free,
        in_evaluation=True,
    )
    data: DataConfig = section(DataConfig, "Data")
    model: ModelConfig = section(ModelConfig, "Model", of_model=True)
    pta: PtaConfig = section(PtaConfig, "Patch-text alignment")
    mixing: MixingConfig = section(MixingConfig, "Mixing")
    loss: LossConfig = section(LossConfig, "Loss")
    optim: OptimConfig = section(OptimConfig, "Optimizer", resume=Resume.same_model)
    trainer: TrainerConfig = section(TrainerConfig, "Trainer", resume=Resume.free)
    tune: TuneConfig = section(TuneConfig, "Fine-tuning", used=[Unless("task", "pretrain")], resume=Resume.same_model)
    vqa: VqaConfig = section(
        VqaConfig, "Visual question answering", used=[When("task", "vqa")], resume=Resume.same_model, in_evaluation=True
    )
    captioning: CaptioningConfig = section(
        CaptioningConfig, "Captioning", used=[When("task", "captioning")], resume=Resume.same_model, in_evaluation=True
    )
    checkpoint: CheckpointConfig = section(CheckpointConfig, "Checkpoints", resume=Resume.free)
    evaluation: EvaluationConfig = section(EvaluationConfig, "Evaluation", resume=Resume.free, in_evaluation=True)
    pictures: PicturesConfig = section(PicturesConfig, "Pictures", used=[When("task", "pretrain")], resume=Resume.free)
    logger: LoggerConfig = section(LoggerConfig, "Logger", resume=Resume.free)
    launcher: LauncherConfig = section(LauncherConfig, "Launcher", resume=Resume.free)
