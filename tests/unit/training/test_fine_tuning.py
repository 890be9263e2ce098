"""A fine-tuning step: the mean over items, learning rates by part, chunks, frozen towers."""

from dataclasses import replace

import pytest
import torch

from tests.optim import optim_settings, slower_towers
from tests.tiny_task import Lengths, ready_task_batches
from tests.unit.training.running import GLOBAL_BATCH_SIZE, AtEachStep, fit, weights_of
from timix_pl.building.checkpoints import load_weights
from timix_pl.training.module import TrainModule
from timix_pl.training.objective import Objective

STEPS = 3


def module_for(model, **options):
    optim = options.pop("optim", optim_settings(lr=1e-2, schedule="constant", warmup_frac=0.0))
    defaults = {"global_batch_size": GLOBAL_BATCH_SIZE, "planned_samples": STEPS * GLOBAL_BATCH_SIZE, "seed": 0, "log_every_n_steps": 1}
    return TrainModule(model, Objective(), optim, **(defaults | options))


def gradients_of_first_step(model, **options):
    """Of each parameter that has one, before they are clipped; and the loss."""
    found, module = {}, module_for(model, **options)
    update = module.update

    def note(loss, terms, keys):
        found.update({name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None})
        found["loss"] = loss
        return update(loss, terms, keys)

    module.update = note
    fit(module, ready_task_batches(model, 1))
    return found


def test_the_loss_is_the_mean_over_items_of_each_term_and_its_gradient_too():
    found = gradients_of_first_step(Lengths(towers="all"))
    model = Lengths(towers="all")
    (batch,) = ready_task_batches(model, 1)
    sums, num_long = model.sums(batch), int(batch.items["long"].sum())
    assert 0 < num_long < len(batch.image_index)
    loss = sums["long"] / num_long + sums["short"] / (len(batch.image_index) - num_long)
    loss.backward()
    torch.testing.assert_close(found.pop("loss"), loss.detach())
    for name, parameter in model.named_parameters():
        assert (name in found) == parameter.requires_grad
        if parameter.requires_grad:
            torch.testing.assert_close(found[name], parameter.grad, msg=name)


def test_free_memory_is_given_back_every_ten_steps(monkeypatch):
    steps, model = [], Lengths()
    module = module_for(model, planned_samples=20 * GLOBAL_BATCH_SIZE)
    monkeypatch.setattr("timix_pl.training.module.return_free_memory", lambda: steps.append(module.global_step))
    fit(module, ready_task_batches(model, 20))
    assert steps == [10, 20]


def test_on_a_gpu_no_memory_of_the_cpu_is_given_back(monkeypatch):
    class SaysGpu(str):
        type = "cuda"

    steps, model = [], Lengths()
    monkeypatch.setattr(TrainModule, "device", SaysGpu("cpu"))
    monkeypatch.setattr("timix_pl.training.module.return_free_memory", lambda: steps.append(1))
    fit(module_for(model, planned_samples=10 * GLOBAL_BATCH_SIZE), ready_task_batches(model, 10))
    assert steps == []


@pytest.mark.parametrize("micro_batch_size", [1, 3, 8])
def test_chunks_have_the_gradients_of_the_whole(micro_batch_size):
    """Of eight images with one to four captions each; three do not divide them."""
    whole, chunks = (
        gradients_of_first_step(Lengths(towers="all")),
        gradients_of_first_step(Lengths(towers="all"), micro_batch_size=micro_batch_size),
    )
    assert whole.keys() == chunks.keys()
    for name in whole:
        torch.testing.assert_close(chunks[name], whole[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_part_has_the_items_of_its_images():
    (batch,) = ready_task_batches(Lengths(), 1)
    parts = batch.split(3)
    assert [len(part.images) for part in parts] == [3, 3, 2] and [part.first for part in parts] == [0, 3, 6]
    assert [part.image_index.tolist() for part in parts] == [[0, 0, 0, 1, 2, 2], [0, 1, 2, 2, 2, 2], [0, 1, 1]]
    assert torch.cat([part.items["tokens"] for part in parts]).equal(batch.items["tokens"])


def test_towers_learn_at_their_share_of_the_rate_and_frozen_ones_not_at_all():
    rates = {}

    def note(module):
        rates["head"], rates["towers"] = (
            {group["lr"] for group in module.optimizers().param_groups if (group["lr_scale"] == 1) == new} for new in (True, False)
        )

    model = Lengths(towers="last", last_blocks=1)
    before = weights_of(model)
    fit(
        module_for(model, groups=slower_towers(0.25)),
        ready_task_batches(model, 2),
        callbacks=[AtEachStep(after=note)],
    )
    assert rates == {"head": {1e-2}, "towers": {2.5e-3}}
    moved = {name for name, weight in weights_of(model).items() if not weight.equal(before[name])}
    assert moved == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any("resblocks" in name for name in moved) and "encoder.image.tower.conv1.weight" not in moved


def test_scales_of_parts_multiply_the_share_of_the_towers_and_the_head_comes_first():
    model = Lengths(towers="all")
    scales = {"image_lr_scale": 0.5, "text_lr_scale": 2.0, "head_lr_scale": 4.0, "layer_decay": 0.5}
    groups = module_for(model, groups=slower_towers(0.25), optim=optim_settings(**scales)).parameter_groups()
    found = {parameter: group["lr_scale"] for group in groups for parameter in group["params"]}
    rates = {name: found[parameter] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert [group["lr_scale"] for group in groups][:2] == [4.0, 4.0]
    assert rates["head.long.weight"] == 4.0
    assert rates["encoder.image.tower.transformer.resblocks.2.mlp.c_fc.weight"] == 0.25 * 0.5 * 0.5
    assert rates["encoder.image.tower.conv1.weight"] == 0.25 * 0.5 * 0.5**4
    assert rates["encoder.text.tower.ln_final.weight"] == 0.25 * 2.0
    plain = module_for(model, groups=slower_towers(1.0)).parameter_groups()
    assert [(group["lr_scale"], group["weight_decay"]) for group in plain] == [(1.0, 0.2), (1.0, 0.0)] * 2  # as checkpoints have them
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert [{names[id(parameter)].partition(".")[0] for parameter in group["params"]} for group in plain] == [{"head"}] * 2 + [
        {"encoder"}
    ] * 2


def test_the_average_is_of_what_is_tuned_and_evaluated_with_what_is_frozen(tmp_path):
    model = Lengths(towers="last", last_blocks=1)
    module = module_for(model, optim=optim_settings(lr=1e-2, schedule="constant", warmup_frac=0.0, ema=0.5))
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    history = [weights_of(model)]
    fit(module, ready_task_batches(model, 2), callbacks=[AtEachStep(after=lambda module: history.append(weights_of(module.model)))])
    torch.save({"state_dict": module.state_dict(), "global_step": 2}, tmp_path / "step.ckpt")
    loaded = Lengths(towers="last", last_blocks=1)
    load_weights(loaded, tmp_path / "step.ckpt", "ema")
    for name, value in weights_of(loaded).items():
        wanted = history[2][name] if name in frozen else history[0][name] / 4 + history[1][name] / 4 + history[2][name] / 2
        torch.testing.assert_close(value, wanted, msg=name)
    assert frozen and not weights_of(loaded)["head.long.weight"].equal(history[2]["head.long.weight"])


def test_a_term_without_items_adds_nothing_and_its_weights_only_decay():
    model = Lengths()
    batches = ready_task_batches(model, 1)
    items = batches[0].items | {"long": torch.ones_like(batches[0].items["long"])}
    batches[0] = replace(batches[0], items=items, items_of_term={"long": len(items["long"]), "short": 0})
    before = weights_of(model)
    (row,) = fit(module_for(model, optim=optim_settings(lr=1e-2, schedule="constant", warmup_frac=0.0, weight_decay=0.0)), batches)
    assert row["train/loss/short"] == 0 and row["train/loss/total"] == row["train/loss/long"] > 0
    after = weights_of(model)
    assert after["head.short.weight"].equal(before["head.short.weight"]) and not after["head.long.weight"].equal(before["head.long.weight"])


def test_what_a_model_is_built_from_is_in_its_checkpoints(tmp_path):
    model = Lengths()
    module, kept = module_for(model, facts={"answers": ["red", "blue"]}), {}
    fit(module, ready_task_batches(model, 1), callbacks=[AtEachStep(after=lambda module: module.on_save_checkpoint(kept))], root=tmp_path)
    assert kept["timix"]["facts"] == {"answers": ["red", "blue"]} and kept["timix"]["planned_samples"] == STEPS * GLOBAL_BATCH_SIZE
