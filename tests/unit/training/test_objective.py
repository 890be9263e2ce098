"""The whole objective against losses put together by hand, for every way of mixing, target and loss."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.objective import loss_of, pair_objective
from tests.tiny import GRID, mix_step, random_pairs, random_regions, tiny_model
from tests.unit.losses.features import softmax
from timix_pl.core.choices import LOSSES
from timix_pl.mixing.groups import mixed_rows
from timix_pl.mixing.strategies.cutmix import CutMix
from timix_pl.mixing.strategies.mixgen import MixGen
from timix_pl.mixing.strategies.mixup import Mixup
from timix_pl.mixing.strategies.timix import TiMix
from timix_pl.training.objective import Contrastive

MIXERS = {"timix": TiMix(GRID, lam="relevance"), "cutmix": CutMix(GRID), "mixup": Mixup(GRID)}


def cross_entropy(logits, targets):
    return -(targets * np.log(softmax(logits, 1))).sum(1)


def contrastive(image, text, w, scale, image_targets=None, text_targets=None):
    """Symmetric soft-target InfoNCE of images against texts; captions without mass in ``w`` are left out."""
    logits = scale * image @ text.T
    mass = w.sum(0)
    rows = w if image_targets is None else image_targets
    columns = np.divide(w, mass, out=np.zeros_like(w), where=mass > 0).T if text_targets is None else text_targets
    return (cross_entropy(logits, rows).mean() + cross_entropy(logits.T, columns)[mass > 0].mean()) / 2


def sigmoid_loss(image, text, labels, scale, bias):
    logits = scale * image @ text.T + bias
    return (np.log1p(np.exp(logits)) - labels * logits).sum() / len(image)


def w_of(plan, size):
    w = np.zeros((len(plan.rows), size))
    for m, (row, partner, lam) in enumerate(zip(plan.rows.tolist(), plan.partners.tolist(), plan.lam.tolist(), strict=True)):
        w[m, row] += lam
        w[m, partner] += 1 - lam
    return w


def encoded_and_parts(name, compute, *, bias=None, size=8):
    model = tiny_model(seed=3, init_logit_bias=bias).eval()
    batch = random_pairs(model, size, seed=1, regions=random_regions(model, 3, 5, seed=2))
    rows, partners = mixed_rows(size, 4, 0.75, seed=1, step=2, first=0)
    mixer = MixGen(GRID) if name == "mixgen" else MIXERS[name]
    joined = model.tokenizer(MixGen(GRID).join(batch.captions, rows, partners)) if name == "mixgen" else None
    with torch.no_grad():
        mix = mix_step(mixer, compute, rows, partners, 1, 2, 0, joined)
        encoded = model(batch.images, batch.tokens, mix=mix, regions=batch.regions)
    parts = {
        key: value.detach().double().numpy()
        for key, value in vars(encoded).items()
        if isinstance(value, torch.Tensor) and (key.endswith("features") or key.startswith("logit"))
    }
    return encoded, batch, parts


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("targets", ["one_hot", "self"])
@pytest.mark.parametrize("loss", ["info_nce", "siglip"])
def test_extra_images_add_gamma_times_their_loss(name, targets, loss):
    encoded, batch, parts = encoded_and_parts(name, "extra", bias=-3.0 if loss == "siglip" else None)
    output = loss_of(pair_objective(LOSSES[loss](), targets=targets, pta_weight=0.5), encoded, batch, gamma=0.7)
    image, text, mixed, scale = (parts[key] for key in ("image_features", "text_features", "mixed_image_features", "logit_scale"))
    size, w = len(image), w_of(encoded.plan, len(image))
    if loss == "info_nce":
        clean = contrastive(image, text, np.eye(size), scale)
        to_text, to_image = softmax(scale * image @ text.T, 1), softmax(scale * text @ image.T, 1)
        if targets == "one_hot":
            extra = contrastive(mixed, text, w, scale)
        else:
            shares = np.divide(w, w.sum(0), out=np.zeros_like(w), where=w.sum(0) > 0)
            columns = to_image @ shares.T
            extra = contrastive(mixed, text, w, scale, w @ to_text, columns / columns.sum(1, keepdims=True))
    else:
        bias = parts["logit_bias"]
        clean = sigmoid_loss(image, text, np.eye(size), scale, bias)
        said = 1 / (1 + np.exp(-(scale * image @ text.T + bias)))
        extra = sigmoid_loss(mixed, text, w if targets == "one_hot" else w @ said, scale, bias)
    patches = F.binary_cross_entropy_with_logits(encoded.region_logits, batch.regions.patch_labels)
    assert output.terms[loss].item() == pytest.approx(clean.item(), rel=1e-5)
    assert output.terms["mixed"].item() == pytest.approx(extra.item(), rel=1e-5)
    assert output.terms["patch_text"].item() == pytest.approx(patches.item(), rel=1e-5)
    assert output.loss.item() == pytest.approx((clean + 0.7 * extra).item() + 0.5 * patches.item(), rel=1e-5)
    assert output.terms.keys() == {loss, "mixed", "patch_text"}


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("loss", ["info_nce", "siglip"])
def test_replaced_images_make_one_set_with_the_clean_ones(name, loss):
    encoded, _, parts = encoded_and_parts(name, "replace", bias=-3.0 if loss == "siglip" else None)
    output = Contrastive(LOSSES[loss](), targets="one_hot")(encoded, first=0, gamma=0.123)
    w = np.eye(8)
    w[encoded.plan.rows] = w_of(encoded.plan, 8)
    image, text, scale = parts["image_features"], parts["text_features"], parts["logit_scale"]
    expected = contrastive(image, text, w, scale) if loss == "info_nce" else sigmoid_loss(image, text, w, scale, parts["logit_bias"])
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)  # gamma is unused
    assert output.terms.keys() == {"mixed"}


@pytest.mark.parametrize("compute", ["extra", "replace"])
def test_joined_pairs_are_pairs_of_their_own(compute):
    encoded, _, parts = encoded_and_parts("mixgen", compute)
    output = Contrastive(targets="one_hot")(encoded, first=0, gamma=0.7)
    image, text, scale = parts["image_features"], parts["text_features"], parts["logit_scale"]
    expected = contrastive(image, text, np.eye(8), scale)
    if compute == "extra":
        mixed = contrastive(parts["mixed_image_features"], parts["mixed_text_features"], np.eye(6), scale)
        assert output.terms["mixed"].item() == pytest.approx(mixed.item(), rel=1e-5)
        expected = expected + 0.7 * mixed
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_self_targets_teach_nothing_back():
    """The clean pass gives the targets but gets no gradient from the mixed loss through them."""
    model = tiny_model(seed=3)
    pairs = random_pairs(model, 8, seed=1)
    rows, partners = mixed_rows(8, 4, 1.0, seed=1, step=2, first=0)
    encoded = model(pairs.images, pairs.tokens, mix=mix_step(Mixup(GRID), "extra", rows, partners, 1, 2, 0))
    mixed = Contrastive(targets="self")(encoded, first=0).terms["mixed"]
    (gradient,) = torch.autograd.grad(mixed, encoded.image_features, allow_unused=True)
    assert gradient is None or gradient.abs().max() == 0
