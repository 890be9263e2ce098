"""The moving average of the weights, against PyTorch's own of models that are not sharded."""

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.tiny import tiny_model
from timix_pl.optim.average import WeightAverage, averaged_weights

TAKEN, LEFT_OUT = torch.tensor(True), torch.tensor(False)


def moved(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))


def averages(average):
    return averaged_weights({f"average.{key}": value.clone() for key, value in average.state_dict().items()}, "average.")


def test_it_is_the_average_that_pytorch_keeps():
    model = tiny_model()
    average = WeightAverage(model, 0.9)
    reference = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    reference.update_parameters(model)  # its first call copies
    for step in range(3):
        moved(model, step)
        average.update(model, TAKEN)
        reference.update_parameters(model)
    found = averages(average)
    assert found.keys() == dict(model.named_parameters()).keys()
    for name, parameter in reference.module.named_parameters():
        torch.testing.assert_close(found[name], parameter.detach(), msg=name)
        assert not found[name].equal(dict(model.named_parameters())[name])


def test_running_statistics_are_averaged_and_counters_are_not():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    average = WeightAverage(model, 0.9)
    reference = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    reference.update_parameters(model)
    for step in range(3):
        model(torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(step)))
        average.update(model, TAKEN)
        reference.update_parameters(model)
    found = averages(average)
    assert found.keys() == model.state_dict().keys() - {"1.num_batches_tracked"}
    for name in ("1.running_mean", "1.running_var"):
        torch.testing.assert_close(found[name], reference.module.state_dict()[name], msg=name)


def test_a_step_that_is_left_out_leaves_every_bit():
    model = tiny_model()
    average = WeightAverage(model, 0.9)
    moved(model, 0)
    before = averages(average)
    average.update(model, LEFT_OUT)
    assert all(value.equal(before[name]) for name, value in averages(average).items())
    average.update(model, TAKEN)
    assert not any(value.equal(before[name]) for name, value in averages(average).items())


def test_frozen_weights_have_none():
    model = tiny_model()
    model.text.requires_grad_(False)
    average = WeightAverage(model, 0.9)
    moved(model, 0)
    average.update(model, TAKEN)
    assert averages(average).keys() == {name for name, _ in model.named_parameters() if not name.startswith("text.")}
    assert not any(parameter.requires_grad for parameter in average.parameters())


@pytest.mark.parametrize("fails", [False, True])
def test_inside_the_model_has_the_average_and_afterwards_its_own_bits(fails):
    model = tiny_model()
    average = WeightAverage(model, 0.5)
    moved(model, 0)
    average.update(model, TAKEN)
    own, wanted = {name: value.clone() for name, value in model.state_dict().items()}, averages(average)
    try:
        with average.in_place(model):
            assert all(value.equal(wanted[name]) for name, value in model.named_parameters())
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert all(value.equal(own[name]) for name, value in model.state_dict().items())
    assert all(value.equal(wanted[name]) for name, value in averages(average).items())
