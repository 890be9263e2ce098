"""No step waits for the device: between two logs the host runs ahead, and the device never idles."""

from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.gpu.devices import DEVICES, moved
from tests.objective import loss_of, pair_objective
from tests.tiny import GRID, mix_step, random_pairs, random_regions, tiny_model
from tests.unit.training.running import GLOBAL_BATCH_SIZE, AtEachStep, fit, ready_batches, training_module
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.strategies.cutmix import CutMix
from timix_pl.mixing.strategies.mixgen import MixGen
from timix_pl.mixing.strategies.mixup import Mixup
from timix_pl.mixing.strategies.timix import TiMix
from timix_pl.models.patch_dropout import PatchDropout
from timix_pl.training.callbacks.mixing import MixingCallback

KINDS = {  # mixer, compute, options of the model
    "plain": (None, "extra", {}),
    "timix": (TiMix(GRID), "extra", {}),
    "timix by relevance": (TiMix(GRID, lam="relevance"), "extra", {}),
    "timix in place": (TiMix(GRID), "replace", {}),
    "timix of tokens": (TiMix(GRID), "extra", {"mixing_level": 1}),
    "timix of tokens in place": (TiMix(GRID), "replace", {"mixing_level": 1}),
    "timix with patch dropout": (TiMix(GRID), "extra", {"patch_dropout": 0.5}),
    "cutmix": (CutMix(GRID), "extra", {}),
    "mixup": (Mixup(GRID), "extra", {}),
    "mixgen": (MixGen(GRID), "extra", {}),
}


def objective_for(compute):
    return pair_objective(targets="self" if compute == "extra" else "one_hot")


@pytest.mark.parametrize("micro_batch_size", [None, 4])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_whole_steps_do_not_wait(kind, device, micro_batch_size):
    """Of five steps the third and fourth: the first ones set up, the first and the last are logged."""
    mixer, compute, options = KINDS[kind]
    model = tiny_model(**options)
    module = training_module(model, objective=objective_for(compute), log_every_n_steps=100, micro_batch_size=micro_batch_size)
    watched = []

    def forbid_waiting(module):
        if module.global_step in (2, 3):
            watched.append(module.global_step)
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("error")

    def allow_waiting(module=None):
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")

    callbacks = [MixingCallback(mixer, ratio=0.5, compute=compute, group_size=4)] if mixer else []
    try:
        fit(module, ready_batches(model, 5), callbacks=[*callbacks, AtEachStep(forbid_waiting, allow_waiting)], accelerator=device)
    finally:
        allow_waiting()
    assert watched == [2, 3]


class NoBlockingCopies(TorchDispatchMode):
    """Refuses to copy from the host to the device that has no memory unless the host need not wait."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("device") == torch.device("meta") and args[0].device.type == "cpu":
            assert kwargs.get("non_blocking"), "this copy waits"
        return func(*args, **kwargs)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_asks_for_a_value_on_the_device(kind, monkeypatch):
    """The towers, the mixing and the losses on a device that has shapes and no values: who asks for one fails, on any machine."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # which that device does not have
    mixer, compute, options = KINDS[kind]
    model = tiny_model(device="meta", **options).train()
    batch = moved(random_pairs(model, GLOBAL_BATCH_SIZE, 0, regions=random_regions(model, 3, 5, 0)), "meta")
    mix = None
    if mixer is not None:
        rows, partners = mixed_rows(GLOBAL_BATCH_SIZE, 4, 0.5, seed=0, step=0, first=0)
        joined = batch.tokens[: len(rows)] if mixer.joins_captions else None
        mix = mix_step(mixer, compute, rows, partners, 0, 0, 0, joined, device="meta")
    dropout = PatchDropout(model.patch_dropout, 0, 0, 0) if model.patch_dropout else None
    with NoBlockingCopies():
        encoded = model(batch.images, batch.tokens, mix=mix, regions=batch.regions, dropout=dropout)
        loss_of(objective_for(compute), encoded, batch).loss.backward()
    assert all(p.grad is not None for p in model.parameters())
