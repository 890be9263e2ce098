"""A progress bar for a run that is one long pass."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from timix_pl.training.step_module import StepModule


class StepProgressBar(TQDMProgressBar):
    """Lightning's bar, counting steps of the run."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that goes on begins inside Lightning's epoch, where the next hook is not called."""
        super().on_train_start(trainer, pl_module)
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning would call the whole run 'Epoch 0', and not know where a resumed one begins and ends."""
        self.train_progress_bar.initial = trainer.global_step
        self.train_progress_bar.reset(total=trainer.max_steps)
        self.train_progress_bar.set_description("Training")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """What is told next begins on a line of its own."""
        self.train_progress_bar.close()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The loss of the last row of metrics, if any. Lightning's own ``log`` would ask the device for it in every step, and wait."""
        assert isinstance(pl_module, StepModule)
        return {} if pl_module.logged_loss is None else {"loss": f"{pl_module.logged_loss:.3g}"}
