"""What the progress bar shows beside the steps."""

from torch.utils.data import DataLoader

from tests.tiny import tiny_model
from tests.unit.training.running import AtEachStep, fit, ready_batches, trainer_for, training_module
from timix_pl.training.callbacks.checkpoints import CheckpointsCallback
from timix_pl.training.callbacks.progress import StepProgressBar


def test_the_bar_shows_the_loss_of_the_last_row():
    model = tiny_model()
    module, bar = training_module(model, log_every_n_steps=2), StepProgressBar()
    assert bar.get_metrics(None, module) == {}  # nothing is logged yet
    *_, last = fit(module, ready_batches(model, 3))
    assert bar.get_metrics(None, module) == {"loss": f"{last['train/loss/total']:.3g}"}


def test_the_bar_of_a_run_that_goes_on_counts_the_steps_of_the_whole_run(tmp_path):
    model = tiny_model()
    batches = DataLoader(ready_batches(model, 5), batch_size=None)

    def shown(max_steps, resume_from=None):
        """Steps done, all steps and the description, at the end of each step."""
        bar, seen, before = StepProgressBar(), [], []
        look = AtEachStep(
            lambda module: before.append(bar.train_progress_bar.n),
            after=lambda module: seen.append((bar.train_progress_bar.n, bar.train_progress_bar.total, bar.train_progress_bar.desc)),
        )
        saving = CheckpointsCallback(tmp_path, every_n_steps=None, every_n_minutes=None, keep_last=1)
        trainer = trainer_for(max_steps, callbacks=[bar, look, saving])
        trainer.fit(training_module(model, num_steps=max_steps), batches, ckpt_path=resume_from, weights_only=True)
        assert bar.train_progress_bar.initial == max_steps - len(seen)  # what the speed is counted from
        assert before[0] == bar.train_progress_bar.initial
        return seen

    assert shown(2) == [(1, 2, "Training: "), (2, 2, "Training: ")]
    assert shown(5, tmp_path / "step-00000002.ckpt") == [(3, 5, "Training: "), (4, 5, "Training: "), (5, 5, "Training: ")]
