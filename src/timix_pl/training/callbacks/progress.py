"""A progress bar over the steps of the whole run."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from timix_pl.training.step_module import StepModule


class StepProgressBar(TQDMProgressBar):
    """Lightning's progress bar, counting steps of the run instead of epochs."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set up the bar for a resumed run, which begins inside Lightning's epoch, so that the next hook is not called."""
        super().on_train_start(trainer, pl_module)
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the bar's label and range. Lightning would label the whole run 'Epoch 0' and show a wrong range for a resumed run."""
        self.train_progress_bar.initial = trainer.global_step
        self.train_progress_bar.reset(total=trainer.max_steps)
        self.train_progress_bar.n = trainer.global_step  # which reset() has set to 0
        self.train_progress_bar.set_description("Training")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End the bar's line, so that the error message begins on a new one."""
        self.train_progress_bar.close()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The loss of the last row of metrics, if any. Lightning's own ``log`` would wait for the device in every step."""
        assert isinstance(pl_module, StepModule)
        return {} if pl_module.logged_loss is None else {"loss": f"{pl_module.logged_loss:.3g}"}
