"""Every optimizer of the registry keeps what its entry states, and learns with the settings of its file in conf/optim."""

import copy
import csv

import pytest
import torch

from tests.optim import optim_settings
from tests.tiny import random_images, tiny_model
from timix_pl.cli.train import main as train
from timix_pl.core.choices import OPTIMIZERS


def with_gradients(model, seed):
    """Gradients of some loss that depends on all parameters; the same for the same weights."""
    torch.manual_seed(seed)
    images, tokens = random_images(2, seed), model.tokenizer(["a red ring", "a blue square"])
    features = torch.cat((model.encode_image(images), model.encode_text(tokens), model.patch_scores(images, tokens).flatten(1)), 1)
    (features.std() + sum((parameter**2).mean() for parameter in model.parameters())).backward()
    return model


def steps(model, optimizer, num_steps):
    for step in range(num_steps):
        with_gradients(model, step)
        optimizer.step()
        optimizer.zero_grad()
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("kind", OPTIMIZERS.names())
def test_an_entry_states_what_its_optimizer_keeps(kind):
    """Of an optimizer that made its state itself, in its first step."""
    model, settings = tiny_model(), optim_settings(kind=kind)
    optimizer = settings.optimizer.build(settings.parameter_groups(model, model.parts()), 1e-3)
    steps(model, optimizer, 1)
    saved = optimizer.state_dict()["state"]
    members = [(parameter, group) for group in optimizer.param_groups for parameter in group["params"]]
    assert len(members) == len(list(model.parameters()))
    for number, (parameter, group) in enumerate(members):
        stated = settings.optimizer.state(parameter, group)
        kept = saved.get(number, {})
        assert {key: (value.shape, value.dtype, value.device) for key, value in stated.items()} == {
            key: (value.shape, value.dtype, value.device) for key, value in kept.items()
        }


@pytest.mark.parametrize("kind", OPTIMIZERS.names())
def test_a_state_made_before_the_first_step_changes_no_bit(kind):
    settings, found = optim_settings(kind=kind), []
    for make in (settings.optimizer.build, settings.optimizer.start):
        model = tiny_model()
        optimizer = make(settings.parameter_groups(model, model.parts()), 1e-3)
        found.append((steps(model, optimizer, 3), copy.deepcopy(optimizer.state_dict()["state"])))
    (weights, states), (weights_again, states_again) = found
    assert all(map(torch.equal, weights, weights_again))
    assert not any(map(torch.equal, weights, tiny_model().parameters()))
    for number, state in states.items():
        assert state.keys() == states_again[number].keys() and all(state[key].equal(states_again[number][key]) for key in state)


def test_muon_makes_the_steps_of_hidden_matrices_orthogonal_and_leaves_the_rest_to_adamw():
    model, reference, settings = tiny_model(), tiny_model(), optim_settings(kind="muon", weight_decay=0.0)
    hidden = {name for name, parameter in model.named_parameters() if "resblocks" in name and parameter.ndim == 2}
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    steps(model, settings.optimizer.start(settings.parameter_groups(model, model.parts()), 1e-2), 1)
    steps(reference, torch.optim.AdamW(reference.parameters(), lr=1e-2, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0), 1)
    of_adamw = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        if name in hidden:
            values = torch.linalg.svdvals(parameter.detach() - before[name]) / (1e-2 * 0.2 * max(parameter.shape) ** 0.5)
            assert 0.5 < values.median() < 1.5 and values.max() < 1.5, name
        else:
            torch.testing.assert_close(parameter, of_adamw[name], rtol=0, atol=1e-6, msg=name)
    assert len(hidden) == 20


def losses(folder, kind):
    """Of 12 steps on the same 16 pairs of the embedded data set, with the learning rate and the weight decay of ``conf/optim``."""
    words = """model=tiny mixing=none data=scenes data.scenes.num_train=16 data.scenes.num_regions=1 data.scenes.num_val=1
    data.scenes.num_zero_shot=1 data.global_batch_size=16 data.num_workers=0 data.augmentation.scale=[1,1] data.augmentation.ratio=[1,1]
    evaluation.tasks=[] trainer=cpu trainer.max_steps=12 trainer.log_every_n_steps=1 trainer.num_threads=1 trainer.progress_bar=false
    optim.warmup_frac=0.1 pictures.num_mixed=0 pictures.num_heat_maps=0 checkpoint.every_n_steps=null""".split()  # noqa: SIM905
    train([*words, f"optim={kind}", f"data.cache_dir={folder / 'cache'}", f"run_dir={folder / 'run'}"])
    with (folder / "run" / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss/total"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("kind", OPTIMIZERS.names())
def test_each_optimizer_learns_the_embedded_data_set(tmp_path, kind):
    found = losses(tmp_path, kind)
    assert len(found) == 12 and sum(found[-3:]) / 3 < 0.8 * found[0]
