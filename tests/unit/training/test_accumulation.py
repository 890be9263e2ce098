"""Steps in chunks against steps with the whole batch at once: the same losses, the same gradients, whatever is mixed."""

import pytest
import torch
from torch import nn

from tests.objective import loss_of, pair_objective
from tests.optim import optim_settings
from tests.tiny import GRID, mix_step, random_pairs, random_regions, taught_by, tiny_model
from tests.unit.training.running import GLOBAL_BATCH_SIZE, fit, ready_batches, training_module, weights_of
from timix_pl.core.choices import LOSSES
from timix_pl.core.randomness import seed_of
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.strategies.cutmix import CutMix
from timix_pl.mixing.strategies.mixgen import MixGen
from timix_pl.mixing.strategies.mixup import Mixup
from timix_pl.mixing.strategies.timix import TiMix
from timix_pl.training.accumulation import Chunk, accumulate, joined, num_mixed_labels
from timix_pl.training.callbacks.mixing import MixingCallback

GROUP = 2
CASES = [
    ("none", "extra", "self", "info_nce"),
    ("none", "extra", "self", "siglip"),
    ("timix", "extra", "self", "info_nce"),
    ("timix", "extra", "one_hot", "info_nce"),
    ("timix", "replace", "one_hot", "info_nce"),
    ("timix", "extra", "self", "siglip"),
    ("timix", "replace", "one_hot", "siglip"),
    ("cutmix", "extra", "self", "info_nce"),
    ("mixup", "replace", "one_hot", "info_nce"),
    ("mixgen", "extra", "one_hot", "info_nce"),
    ("mixgen", "replace", "one_hot", "info_nce"),
    ("taught", "extra", "self", "info_nce"),
    ("taught", "replace", "one_hot", "info_nce"),
]
MIXERS = {
    "timix": TiMix(GRID, lam="relevance"),
    "cutmix": CutMix(GRID),
    "mixup": Mixup(GRID),
    "mixgen": MixGen(GRID),
    "taught": TiMix(GRID),
}


def chunks_of(model, name, compute, size, *, regions=True):
    batch = random_pairs(model, GLOBAL_BATCH_SIZE, seed=2, regions=random_regions(model, 3, 5, seed=3) if regions else None)
    chunks = []
    for part in batch.split(size):
        mix = None
        if name != "none":
            rows, partners = mixed_rows(len(part.images), GROUP, 1.0, seed=4, step=5, first=part.first)
            joined = model.tokenizer(MixGen(GRID).join(part.captions, rows, partners)) if name == "mixgen" else None
            mix = mix_step(MIXERS[name], compute, rows, partners, 4, 5, part.first, joined)
            mix = taught_by(mix, len(part.images), GROUP) if name == "taught" else mix
        chunks.append(Chunk(batch=part, mix=mix))
    return chunks


def encoder(model):
    def encode(chunk):
        torch.manual_seed(seed_of(chunk.batch.first))
        return chunk.encode(model)

    return encode


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def in_one_go(model, objective, chunk):
    encoded = encoder(model)(chunk)
    output = loss_of(objective, encoded, chunk.batch, gamma=0.7, more=num_mixed_labels([chunk], GRID[0] * GRID[1]))
    output.loss.backward()
    return encoded, output


def in_chunks(model, objective, chunks):
    order = []

    def backward(loss, encoded, last):
        order.append(last)
        loss.backward()

    taught = num_mixed_labels(chunks, GRID[0] * GRID[1])
    num_items = objective.count_items(chunks[-1].batch, torch.device("cpu"), taught)  # all regions are in the last one
    result = accumulate(chunks, encoder(model), objective, num_items, 0.7, backward)
    assert order == [False] * (len(chunks) - 1) + [True]
    return result


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_chunks_give_the_loss_and_every_gradient_of_the_whole(case, size):
    name, compute, targets, loss = case
    options = {"init_logit_bias": -2.0} if loss == "siglip" else {}
    whole, chunked = tiny_model(seed=1, **options), tiny_model(seed=1, **options)
    objective = pair_objective(LOSSES[loss](), targets=targets, pta_weight=0.5)
    (chunk,) = chunks_of(whole, name, compute, GLOBAL_BATCH_SIZE)
    encoded, output = in_one_go(whole, objective, chunk)
    encoded_in_chunks, output_in_chunks = in_chunks(chunked, objective, chunks_of(chunked, name, compute, size))
    torch.testing.assert_close(output_in_chunks.loss, output.loss.detach(), rtol=1e-5, atol=1e-6)
    assert output_in_chunks.terms.keys() == output.terms.keys()
    for term, value in output.terms.items():
        torch.testing.assert_close(output_in_chunks.terms[term], value.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(encoded_in_chunks.image_features, encoded.image_features.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encoded_in_chunks.region_logits, encoded.region_logits.detach(), rtol=1e-4, atol=1e-5)
    assert (encoded_in_chunks.mixed_logits is None) == (encoded_in_chunks.mixed_labels is None) == (name != "taught")
    if encoded.plan is not None:
        assert encoded_in_chunks.plan.rows.equal(encoded.plan.rows) and encoded_in_chunks.plan.partners.equal(encoded.plan.partners)
        torch.testing.assert_close(encoded_in_chunks.plan.lam, encoded.plan.lam)
    wanted, found = gradients(whole), gradients(chunked)
    assert found.keys() == wanted.keys() and len(wanted) > 50
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=2e-5 * max(1.0, gradient.abs().max().item()), msg=name)


def with_dropout():
    """A model whose towers drop out, as some of Hugging Face's text towers do."""
    model = tiny_model(seed=1)
    model.text.tower.ln_final = nn.Sequential(model.text.tower.ln_final, nn.Dropout(0.4))
    model.image.tower.ln_post = nn.Sequential(model.image.tower.ln_post, nn.Dropout(0.4))
    for block in model.image.tower.transformer.resblocks:
        block.mlp.append(nn.Dropout(0.4))
    return model


@pytest.mark.parametrize(("mixer", "compute"), [("none", "extra"), ("timix", "extra"), ("timix", "replace"), ("mixgen", "extra")])
def test_dropout_draws_the_same_in_both_passes(mixer, compute):
    """Against the graph of all chunks at once, which needs no second pass."""
    reference, model = with_dropout(), with_dropout()
    objective = pair_objective(targets="one_hot")
    chunks = chunks_of(reference, mixer, compute, 2, regions=False)
    whole = joined([encoder(reference)(chunk) for chunk in chunks], [chunk.batch.first for chunk in chunks])
    objective.contrastive(whole, first=0, gamma=0.7).loss.backward()
    in_chunks(model, objective, chunks_of(model, mixer, compute, 2, regions=False))
    wanted, found = gradients(reference), gradients(model)
    for name in wanted.keys() - {name for name in wanted if name.startswith("pta.")}:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-6, msg=name)


def test_autocast_between_the_passes_loses_no_gradient():
    """Weights cast in the pass without gradients must not be taken for those of the pass with them."""
    model = tiny_model(seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        in_chunks(model, pair_objective(targets="self"), chunks_of(model, "timix", "extra", 4))
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize("compute", ["extra", "replace"])
def test_a_run_in_chunks_is_the_run_with_whole_batches(compute):
    """Three steps, regions in some; AdamW with so large an eps that it moves by the gradient, not by its sign."""
    rows, weights = {}, {}
    for size in (None, 4):
        model = tiny_model()
        optim = optim_settings(lr=0.1, eps=1.0, schedule="constant", warmup_frac=0.0)
        objective = pair_objective(targets="self" if compute == "extra" else "one_hot")
        module = training_module(model, optim=optim, objective=objective, micro_batch_size=size)
        batches = ready_batches(model, 3)
        batches[1].regions = None
        rows[size] = fit(module, batches, callbacks=[MixingCallback(TiMix(GRID), compute=compute, group_size=4)])
        weights[size] = weights_of(model)
    for one, other in zip(rows[None], rows[4], strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert other[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    for name, weight in weights[None].items():
        torch.testing.assert_close(weights[4][name], weight, rtol=1e-3, atol=1e-4, msg=name)


def test_dropout_of_a_step_does_not_depend_on_what_came_before():
    """So a resumed run draws what the uninterrupted one drew."""
    losses = []
    for drawn_before in (0, 5):
        model = with_dropout()
        torch.rand(drawn_before)
        losses.append([row["train/loss/total"] for row in fit(training_module(model), ready_batches(model, 2))])
    assert losses[0] == losses[1] and losses[0][0] != losses[0][1]
