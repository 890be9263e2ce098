"""Further terms of the loss: means over items of the global batch, and terms that compare its pairs."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.objective import add_terms, pair_objective
from tests.plugins.coca import Captioning
from tests.plugins.patch_contrast import PatchContrast
from tests.tiny import GRID, random_pairs, tiny_model
from tests.unit.training.running import GLOBAL_BATCH_SIZE, AtEachStep, fit, ready_batches, same, training_module, weights_of
from timix_pl.core.errors import ModelError
from timix_pl.losses.term import BatchTerm, ChunkTerm
from timix_pl.mixing.strategies.timix import TiMix
from timix_pl.training.callbacks.mixing import MixingCallback

KINDS = (Captioning, PatchContrast)


def with_terms(*kinds, **model_options):
    """A model that runs the terms, and the objective that adds them up."""
    model = tiny_model(**model_options)
    return model, pair_objective(terms=add_terms(model, *kinds))


def run(model, objective, num_steps=2, **options):
    module = training_module(model, objective=objective, num_steps=num_steps, **options)
    return fit(module, ready_batches(model, num_steps), callbacks=[MixingCallback(TiMix(GRID), group_size=4)])


def test_a_term_over_items_is_their_mean():
    """Against the term's parts on the whole batch, put together by hand."""
    model, objective = with_terms(Captioning)
    batch, term = random_pairs(model, GLOBAL_BATCH_SIZE, seed=0), model.terms["captioning"]
    seen = []
    term.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    encoded = model(batch.images, batch.tokens)
    output = objective(encoded, batch, objective.count_items(batch, torch.device("cpu")))
    logits = []
    term.next_token.register_forward_hook(lambda module, args, output: logits.append(output))
    term(seen[0])
    wanted = batch.tokens[:, 1:]
    losses = F.cross_entropy(logits[0].transpose(1, 2), wanted, reduction="none")[wanted != 0]
    torch.testing.assert_close(output.terms["captioning"], losses.mean())
    torch.testing.assert_close(output.loss, output.terms["info_nce"] + 2.0 * losses.mean())


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_learn_what_the_whole_batch_does(kind):
    rows, gradients = {}, {}
    for size in (None, 4, 2):
        model, objective = with_terms(kind)
        module = training_module(model, objective=objective, num_steps=1, micro_batch_size=size)
        update, found = module.update, gradients.setdefault(size, {})

        def note(*args, update=update, model=model, found=found):
            found.update({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
            return update(*args)

        module.update = note
        (rows[size],) = fit(module, ready_batches(model, 1))
    for size in (4, 2):
        for value in (f"train/loss/{kind.choice}", "train/loss/total"):
            assert rows[size][value] == pytest.approx(rows[None][value], rel=1e-5), value
        for parameter, gradient in gradients[None].items():
            torch.testing.assert_close(gradients[size][parameter], gradient, rtol=1e-3, atol=2e-5 * max(1.0, gradient.abs().max().item()))
    assert any(parameter.startswith(f"terms.{kind.choice}.") and gradient.abs().sum() > 0 for parameter, gradient in gradients[4].items())


class Scaled(BatchTerm):
    """Its parameter stands where no chunk could give it a gradient."""

    choice = "scaled"

    def __init__(self, encoder):
        super().__init__(encoder)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, seen):
        return seen.image_features

    def loss(self, rows, image_features, text_features, logit_scale, *, first):
        return self.scale * rows.square().mean()


def test_a_comparison_that_uses_a_parameter_is_refused():
    model, objective = with_terms(Scaled)
    with pytest.raises(ModelError, match=r"'scaled': loss\(\) uses the parameter 'scale'.*; use it in forward\(\)"):
        run(model, objective, num_steps=1)


class Noisy(ChunkTerm):
    choice = "noisy"

    def forward(self, seen):
        return F.dropout(seen.image_features, 0.5).square().sum()

    def num_items(self, batch):
        return len(batch.images)


class NoisyRows(BatchTerm):
    choice = "noisy_rows"

    def __init__(self, encoder):
        super().__init__(encoder)
        self.drawn = []

    def forward(self, seen):
        rows = F.dropout(seen.image_features, 0.5)
        self.drawn.append(rows.detach() == 0)
        return rows

    def loss(self, rows, image_features, text_features, logit_scale, *, first):
        return rows.square().mean()


def test_both_passes_of_a_chunk_draw_the_same_whatever_other_terms_draw():
    model, objective = with_terms(Noisy, NoisyRows)
    run(model, objective, num_steps=1, micro_batch_size=4)
    first, second = model.terms["noisy_rows"].drawn[: GLOBAL_BATCH_SIZE // 4], model.terms["noisy_rows"].drawn[GLOBAL_BATCH_SIZE // 4 :]
    assert len(first) == len(second) > 1
    assert all(a.equal(b) and a.any() for a, b in zip(first, second, strict=True))


class Seeing(ChunkTerm):
    """Keeps what it is given."""

    choice = "seeing"

    def forward(self, seen):
        self.kept, self.num_patches = seen.keep, seen.patch_features.shape[1]
        return seen.patch_features.sum() * 0

    def num_items(self, batch):
        return len(batch.images)


@pytest.mark.parametrize("compute", ["extra", "replace"])
@pytest.mark.parametrize("level", [None, 0])
def test_a_term_knows_which_patches_it_sees(compute, level):
    model, objective = with_terms(Seeing, patch_dropout=0.5, mixing_level=level)
    mixing = MixingCallback(TiMix(GRID), group_size=4, compute=compute)
    module = training_module(model.train(), objective=objective, num_steps=1)
    fit(module, ready_batches(model, 1), callbacks=[mixing])
    term = model.terms["seeing"]
    assert term.kept.shape == (GLOBAL_BATCH_SIZE, term.num_patches) and term.num_patches < GRID[0] * GRID[1]


def test_terms_are_logged_and_learn():
    model, objective = with_terms(*KINDS)
    before = {name: weight.clone() for name, weight in weights_of(model).items()}
    rows = run(model, objective)
    for row in rows:
        parts = row["train/loss/info_nce"] + row["train/loss/mixed"] + row["train/loss/patch_text"]
        assert row["train/loss/total"] == pytest.approx(
            parts + 2.0 * row["train/loss/captioning"] + 0.5 * row["train/loss/patch_contrast"], rel=1e-5
        )
    after = weights_of(model)
    assert all(not after[name].equal(weight) for name, weight in before.items() if name.startswith("terms."))


def test_other_terms_of_the_loss_stay_as_they_are():
    """With a term of weight 0, the towers learn what they learn without it."""
    model, objective = with_terms(Captioning)
    model.terms["captioning"].weight = 0.0
    objective = pair_objective(terms=dict(model.terms))
    run(model, objective)
    plain = tiny_model()
    run(plain, pair_objective())
    assert same(weights_of(plain), {name: weight for name, weight in weights_of(model).items() if not name.startswith("terms.")})


def test_a_step_without_gradient_for_a_term_leaves_it_only_to_decay():
    model, objective = with_terms(Captioning)
    seen = []
    module = training_module(model, objective=objective, num_steps=1)
    batches = [replace(batch, tokens=batch.tokens.clone()) for batch in ready_batches(model, 1, regions=False)]
    batches[0].tokens[:, 1:] = 0  # nothing to write
    watch = AtEachStep(after=lambda module: seen.append(float(module.model.terms["captioning"].next_token.bias.abs().sum())))
    (row,) = fit(module, batches, callbacks=[watch])
    assert row["train/loss/captioning"] == 0 and seen[0] > 0
