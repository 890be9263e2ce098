"""bf16 and compiled steps against plain fp32 ones."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from tests.gpu.devices import DEVICES, moved
from tests.objective import loss_of, pair_objective
from tests.tiny import GRID, mix_step, random_pairs, random_regions, tiny_model
from tests.unit.training.running import fit, ready_batches, training_module
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.strategies.mixup import Mixup
from timix_pl.mixing.strategies.timix import TiMix
from timix_pl.training.callbacks.mixing import MixingCallback
from timix_pl.training.sharding import ShardedStrategy

BATCH_SIZE = 16


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("compute", ["extra", "replace"])
def test_bf16_has_the_loss_of_fp32_and_gradients_of_the_same_direction(device, compute):
    model = tiny_model().to(device)
    batch = moved(random_pairs(model, BATCH_SIZE, 0, regions=random_regions(model, 4, 6, 0)), device)
    objective = pair_objective(targets="self" if compute == "extra" else "one_hot")
    mix = mix_step(TiMix(GRID), compute, *mixed_rows(BATCH_SIZE, BATCH_SIZE, 0.5, seed=0, step=0, first=0), 0, 0, 0)

    def loss_and_gradients(mix, *, bf16):
        model.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            encoded = model(batch.images, batch.tokens, mix=mix, regions=batch.regions)
        assert bf16 == (encoded.region_logits.dtype == torch.bfloat16)
        loss = loss_of(objective, encoded, batch).loss
        loss.backward()
        parts = {part: getattr(model, part).parameters() for part in ("image", "text", "pta")}
        return encoded.plan, loss, {part: torch.cat([p.grad.flatten() for p in parameters]) for part, parameters in parts.items()}

    plan, loss, gradients = loss_and_gradients(mix, bf16=False)
    _, loss_of_bf16, gradients_of_bf16 = loss_and_gradients(replace(mix, planned=plan), bf16=True)  # the same windows
    assert loss_of_bf16.dtype == torch.float32
    torch.testing.assert_close(loss_of_bf16, loss, rtol=0.01, atol=0)
    for part, gradient in gradients.items():
        assert F.cosine_similarity(gradient, gradients_of_bf16[part], dim=0) > 0.99, part


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_blocks_have_the_losses_of_eager_ones(device, checkpointing):
    """On the CPU without a compiler: the graphs alone. With AOTAutograd, test_compile.py compares them."""
    rows = {}
    for compiled in (False, True):
        model = tiny_model()
        if checkpointing:
            model.checkpoint_gradients()
        if compiled:
            model.compile_blocks("inductor" if device == "cuda" else "eager")
        callbacks = [MixingCallback(TiMix(GRID), ratio=0.5, group_size=4)]
        rows[compiled] = fit(training_module(model), ready_batches(model, 3), callbacks=callbacks, accelerator=device)
    for eager, of_compiled in zip(rows[False], rows[True], strict=True):
        for name in ("train/loss/total", "train/loss/mixed", "train/grad_norm"):
            assert of_compiled[name] == pytest.approx(eager[name], rel=1e-3), name


@pytest.mark.parametrize("device", DEVICES)
def test_shards_that_compute_in_bf16_follow_fp32(device):
    """FSDP2 with one rank: its casts and its reductions, if not its exchanges."""
    rows = []
    for strategy in ("auto", ShardedStrategy(1, sharded_checkpoints=False, param_dtype=torch.bfloat16)):
        model = tiny_model()
        callbacks = [MixingCallback(Mixup(GRID), ratio=0.5, group_size=4)]
        try:
            rows.append(fit(training_module(model), ready_batches(model, 3), callbacks=callbacks, accelerator=device, strategy=strategy))
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    for fp32, bf16 in zip(*rows, strict=True):
        assert bf16["train/loss/total"] == pytest.approx(fp32["train/loss/total"], rel=0.02)
        assert bf16["train/loss/total"] != fp32["train/loss/total"]
