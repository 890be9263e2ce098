"""What the progress bar shows beside the steps."""

from tests.tiny import tiny_model
from tests.unit.training.running import fit, ready_batches, training_module
from timix_pl.training.callbacks.progress import StepProgressBar


def test_the_bar_shows_the_loss_of_the_last_row():
    model = tiny_model()
    module, bar = training_module(model, log_every_n_steps=2), StepProgressBar()
    assert bar.get_metrics(None, module) == {"loss": "nan"}
    *_, last = fit(module, ready_batches(model, 3))
    assert bar.get_metrics(None, module) == {"loss": f"{last['train/loss/total']:.3g}"}
