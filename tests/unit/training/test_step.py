"""One training step against a plain CLIP step, and what it costs: forwards, backwards and optimizer steps, counted."""

import math
from collections import Counter

import open_clip
import pytest
import torch
import torch.nn.functional as F

from tests.objective import pair_objective
from tests.optim import optim_settings
from tests.tiny import GRID, random_pairs, random_regions, tiny_model
from tests.unit.training.running import GLOBAL_BATCH_SIZE, AtEachStep, fit, ready_batches, training_module, weights_of
from timix_pl.losses.patch_text import patch_text
from timix_pl.mixing.strategies.cutmix import CutMix
from timix_pl.mixing.strategies.mixgen import MixGen
from timix_pl.mixing.strategies.mixup import Mixup
from timix_pl.mixing.strategies.timix import TiMix
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.training.callbacks.mixing import MixingCallback


def no_decay(name, parameter):
    """Gains, biases, the class token, position embeddings and the logit scale."""
    return parameter.ndim < 2 or "positional_embedding" in name or "class_embedding" in name


def plain_clip_steps(plain, batches, optim):
    """CLIP as its paper writes it: open_clip's model, the loss of figure 3, AdamW."""
    named = list(plain.named_parameters())
    groups = [
        {"params": [p for name, p in named if not no_decay(name, p)], "weight_decay": optim.weight_decay},
        {"params": [p for name, p in named if no_decay(name, p)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=optim.lr, betas=optim.optimizer.betas, eps=optim.optimizer.eps, fused=True)
    statistics = plain.visual.preprocess_cfg
    mean, std = (torch.tensor(statistics[name]).view(1, 3, 1, 1) * 255 for name in ("mean", "std"))
    norms = []
    for pairs in batches:
        image_features, text_features, logit_scale = plain((pairs.images - mean) / std, pairs.tokens)
        logits, labels = logit_scale * image_features @ text_features.T, torch.arange(len(image_features))
        loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(plain.parameters(), optim.clip_grad_norm or math.inf)))
        optimizer.step()
        optimizer.zero_grad()
    return norms


def plain_and_ours(tmp_path):
    torch.manual_seed(1)
    plain = open_clip.create_model("test-nano")
    path = tmp_path / "plain.pt"
    torch.save(plain.state_dict(), path)
    return plain.train(), DualEncoder.create("test-nano", pretrained=str(path), pta_block=2, with_pta=False, init_logit_scale=1 / 0.07)


MIXING_OFF = {
    "none": [],
    "ratio 0": [MixingCallback(Mixup(GRID), ratio=0.0, group_size=4)],
    "not yet": [MixingCallback(Mixup(GRID), first_samples=99)],
}


@pytest.mark.parametrize("mixing", MIXING_OFF)
def test_with_mixing_off_steps_are_plain_clip_steps_to_the_last_bit(tmp_path, mixing):
    plain, model = plain_and_ours(tmp_path)
    optim = optim_settings(lr=1e-3, schedule="constant", warmup_frac=0.0, clip_grad_norm=None)
    batches = ready_batches(model, 3, regions=False)
    before = model.encode_image(batches[0].images)
    plain_clip_steps(plain, batches, optim)
    fit(training_module(model, optim=optim), batches, callbacks=MIXING_OFF[mixing])
    ours = {name: p for name, p in model.named_parameters() if not name.startswith("logit")}
    theirs = dict(plain.named_parameters())
    assert len(ours) + 1 == len(theirs)
    for name, parameter in ours.items():
        reference = theirs[name.replace("image.tower.", "visual.").replace("text.tower.", "").replace("text.projection", "text_projection")]
        assert torch.equal(parameter, reference), name
    assert model.logit_scale.item() == plain.logit_scale.item()
    assert not before.equal(model.encode_image(batches[0].images))


def test_gradients_are_clipped_as_everybody_clips_them(tmp_path):
    plain, model = plain_and_ours(tmp_path)
    optim = optim_settings(lr=1e-3, schedule="constant", warmup_frac=0.0, clip_grad_norm=0.05, eps=1e-2)
    batches = ready_batches(model, 2, regions=False)
    norms = plain_clip_steps(plain, batches, optim)
    rows = fit(training_module(model, optim=optim), batches)
    assert [row["train/grad_norm"] for row in rows] == pytest.approx(norms, rel=1e-5)
    assert min(norms) > 0.05
    torch.testing.assert_close(model.image.tower.conv1.weight, plain.visual.conv1.weight, rtol=0, atol=1e-7)


class Counts:
    """How many images ran through each part of the image tower, call by call, and how often texts were encoded and weights updated."""

    def __init__(self, model):
        tower = model.image.tower
        self.images = {"stem": [], "block 1": [], "block 2": [], "block 3": []}
        parts = [tower.conv1, *tower.transformer.resblocks]
        for name, part in zip(self.images, parts, strict=True):
            part.register_forward_hook(lambda module, args, output, name=name: self.images[name].append(len(args[0])))
        self.texts, self.backwards, self.updates = [], 0, 0
        model.text.tower.register_forward_hook(lambda module, args, output: self.texts.append(len(args[0])))
        tower.conv1.weight.register_post_accumulate_grad_hook(lambda parameter: setattr(self, "backwards", self.backwards + 1))

    def watch(self, module):
        optimizer = module.optimizers().optimizer
        if not getattr(optimizer, "watched", False):
            optimizer.watched = True
            optimizer.register_step_post_hook(lambda *_: setattr(self, "updates", self.updates + 1))


B, N, R = GLOBAL_BATCH_SIZE, 3, 5  # pairs, region images, phrases
COSTS = {  # images through the parts of the tower, texts through the other
    "plain": (None, False, [B], [B], [B]),
    "plain with regions": (None, True, [B, N], [B], [B, R]),
    "timix": ((TiMix(GRID), 1.0, "extra"), False, [B, B], [B, B], [B]),
    "timix with regions": ((TiMix(GRID), 1.0, "extra"), True, [B, B, N], [B, B], [B, R]),
    "timix at a half": ((TiMix(GRID), 0.5, "extra"), False, [B, B // 2], [B, B // 2], [B]),
    "timix in place": ((TiMix(GRID), 0.5, "replace"), False, [B // 2, B], [B], [B]),
    "timix in place with regions": ((TiMix(GRID), 1.0, "replace"), True, [B, B, N], [B], [B, R]),
    "cutmix": ((CutMix(GRID), 1.0, "extra"), False, [B, B], [B, B], [B]),
    "cutmix in place": ((CutMix(GRID), 1.0, "replace"), False, [B], [B], [B]),
    "mixup in place": ((Mixup(GRID), 0.5, "replace"), False, [B], [B], [B]),
    "mixgen": ((MixGen(GRID), 1.0, "extra"), False, [B, B], [B, B], [B, B]),
    "mixgen in place": ((MixGen(GRID), 0.5, "replace"), False, [B], [B], [B, B // 2]),
}


@pytest.mark.parametrize("name", COSTS)
def test_what_a_step_costs(name):
    """Up to block 2 (the stem and block 1 stand for it) region images and scoring add passes; block 3 sees clean and mixed images alone."""
    mixing, regions, up_to_the_block, after_it, texts = COSTS[name]
    model = tiny_model(pta_block=2)
    targets = "one_hot" if mixing and mixing[2] == "replace" else "self"
    module = training_module(model, objective=pair_objective(targets=targets))
    batches = ready_batches(model, 2, regions=regions)
    counts = Counts(model)
    callbacks = [MixingCallback(mixing[0], ratio=mixing[1], compute=mixing[2], group_size=4)] if mixing else []
    fit(module, batches, callbacks=[*callbacks, AtEachStep(before=counts.watch)])
    for part in ("stem", "block 1", "block 2"):
        assert counts.images[part] == 2 * up_to_the_block, part
    assert counts.images["block 3"] == 2 * after_it
    assert counts.texts == 2 * texts
    assert counts.backwards == 2 and counts.updates == 2


def reached(model, loss):
    model.zero_grad()
    loss.backward()
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.abs().sum() > 0}


@pytest.mark.parametrize("grad", ["full", "trunk", "head"])
def test_the_pta_loss_reaches_what_it_should(grad):
    model = tiny_model(pta_block=2, pta_grad=grad)
    pairs, regions = random_pairs(model, 4, seed=0), random_regions(model, 3, 5, seed=0)
    logits = model(pairs.images, pairs.tokens, regions=regions).region_logits
    found = reached(model, patch_text(logits, regions.patch_labels))
    names = dict(model.named_parameters())
    head = {name for name in names if name.startswith("pta.")}
    after = ("image.tower.transformer.resblocks.2", "image.tower.ln_post", "image.tower.proj")
    trunk = {name for name in names if name.startswith("image.") and not name.startswith(after)}
    text = {name for name in names if name.startswith("text.tower.")}
    assert found == {"full": head | trunk | text, "trunk": head | trunk, "head": head}[grad]
    assert len(head) == 11 and len(trunk) > 20 and len(text) > 20


@pytest.mark.parametrize("compute", ["extra", "replace"])
def test_mixing_by_scores_sends_no_gradient_into_the_head(compute):
    """Without regions the head gets none; decay aside it would stay as it is."""
    model = tiny_model()
    module = training_module(
        model, objective=pair_objective(targets="one_hot"), optim=optim_settings(weight_decay=0.0, schedule="constant")
    )
    before = weights_of(model)
    fit(module, ready_batches(model, 2, regions=False), callbacks=[MixingCallback(TiMix(GRID), compute=compute, group_size=4)])
    after = weights_of(model)
    for name in before:
        assert torch.equal(before[name], after[name]) == name.startswith("pta."), name


def test_the_loss_is_the_weighted_sum_of_its_terms():
    model = tiny_model()
    module = training_module(model, objective=pair_objective(pta_weight=0.3))
    (row,) = fit(module, ready_batches(model, 1), callbacks=[MixingCallback(TiMix(GRID), gamma=0.7, group_size=4)])
    loss = {name: row[f"train/loss/{name}"] for name in ("total", "info_nce", "mixed", "patch_text")}
    assert loss["total"] == pytest.approx(loss["info_nce"] + 0.7 * loss["mixed"] + 0.3 * loss["patch_text"], rel=1e-6)
    assert min(loss.values()) > 0


def test_what_is_logged_is_what_happened():
    model = tiny_model()
    module = training_module(model, objective=pair_objective(targets="one_hot"))
    plans = []
    model.register_forward_hook(lambda module, args, kwargs, output: plans.append(output), with_kwargs=True)
    batches = ready_batches(model, 2)
    rows = fit(module, batches, callbacks=[MixingCallback(TiMix(GRID, lam="relevance"), ratio=0.5, gamma=0.4, group_size=4)])
    counts = Counter()
    for row, encoded, batch in zip(rows, plans, batches, strict=True):
        assert row["train/mixing/lam"] == pytest.approx(encoded.plan.lam.mean().item())
        assert row["train/mixing/side"] == encoded.plan.windows.side
        assert row["train/mixing/num_mixed"] == 4 and row["train/mixing/gamma"] == pytest.approx(0.4)
        assert row["train/logit_scale"] == pytest.approx(encoded.logit_scale.item())
        said, true = encoded.region_logits > 0, batch.regions.patch_labels > 0
        hits = (said & true).sum().item()
        assert row["train/pta/precision"] == pytest.approx(hits / max(said.sum().item(), 1))
        assert row["train/pta/recall"] == pytest.approx(hits / true.sum().item())
        counts.update(row.keys())
    assert [row["step"] for row in rows] == [1, 2] and [row["consumed"] for row in rows] == [8, 16]
    assert counts["train/lr"] == counts["train/grad_norm"] == counts["train/num_skipped_steps"] == 2
