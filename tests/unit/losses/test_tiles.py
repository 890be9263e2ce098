"""The tiled losses against all logits at once: values and gradients, whatever the tile."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.untiled import untiled_loss
from tests.unit.losses.features import random_features, random_pairs, value_and_gradients
from timix_pl.losses.contrastive.info_nce import info_nce
from timix_pl.losses.contrastive.siglip import siglip
from timix_pl.losses.pairs import Pairs
from timix_pl.losses.tiles import automatic_tile_rows, logsumexps

KINDS = pytest.mark.parametrize("kind", ["info_nce", "siglip"])


def both(kind, pairs, num_captions, *, self_targets, tile_rows, dim=6, dtype=torch.float64, scale=9.0):
    """Loss and gradients in images, captions, scale and, where there is one, bias: tiled, and from all logits at once."""
    images, captions = (random_features(rows, dim, seed, dtype=dtype) for rows, seed in ((len(pairs.own), 1), (num_captions, 2)))
    clean = random_features(num_captions, dim, 3, dtype=dtype) if self_targets else None
    leaves = [images, captions, torch.tensor([scale], dtype=dtype), *([torch.tensor([-2.0], dtype=dtype)] if kind == "siglip" else [])]
    loss = siglip if kind == "siglip" else info_nce
    return (
        value_and_gradients(lambda *tensors: loss(*tensors, pairs, clean=clean, tile_rows=tile_rows), *leaves),
        value_and_gradients(lambda x, y, s, b=None: untiled_loss(kind, x, y, s, b, pairs, clean), *leaves),
    )


def assert_same(results, rtol=1e-9, atol=1e-11):
    for tiled, untiled in zip(*results, strict=True):
        torch.testing.assert_close(tiled, untiled, rtol=rtol, atol=atol)


@KINDS
@settings(max_examples=25, deadline=None)
@given(data=st.data(), num_captions=st.integers(2, 17), self_targets=st.booleans(), tile_rows=st.integers(1, 20))
def test_any_tile_gives_the_loss_of_all_logits_at_once(kind, data, num_captions, self_targets, tile_rows):
    pairs = random_pairs(num_captions, data.draw(st.integers(1, num_captions)), seed=tile_rows)
    assert_same(both(kind, pairs, num_captions, self_targets=self_targets, tile_rows=tile_rows))


@KINDS
@pytest.mark.parametrize("self_targets", [False, True])
def test_fp32_loses_no_more_than_rounding(kind, self_targets):
    pairs = random_pairs(300, 200, seed=0, dtype=torch.float32)
    results = both(kind, pairs, 300, self_targets=self_targets, tile_rows=128, dim=64, dtype=torch.float32, scale=100.0)
    assert_same(results, rtol=1e-4, atol=2e-6)


@KINDS
@pytest.mark.parametrize("self_targets", [False, True])
def test_shares_of_0_and_1_and_images_mixed_with_themselves(kind, self_targets):
    """Captions 0 and 4 are in no image, though image 0 names caption 4."""
    pairs = Pairs(torch.tensor([0, 2, 3]), torch.tensor([1, 4, 3]), torch.tensor([0.0, 1.0, 0.3], dtype=torch.float64))
    results = both(kind, pairs, 5, self_targets=self_targets, tile_rows=2)
    assert all(torch.isfinite(tensor).all() for tensor in results[0])
    assert_same(results)


def test_logsumexps_that_overflow_fp32_without_care():
    x, y = random_features(5, 3, seed=0, dtype=torch.float32), random_features(7, 3, seed=1, dtype=torch.float32)
    logits = 500 * x @ y.T
    rows, columns = logsumexps(x, y, torch.tensor(500.0), tile_rows=2)
    torch.testing.assert_close(rows, logits.logsumexp(1))
    torch.testing.assert_close(columns, logits.logsumexp(0))


def test_rows_without_weight_add_nothing_to_columns():
    x, y = random_features(5, 3, seed=0), random_features(7, 3, seed=1)
    weights = torch.tensor([0.0, 0.0, 1.0, 2.0, 0.0], dtype=torch.float64)
    _, columns = logsumexps(x, y, torch.tensor(9.0), log_weights=weights.log(), tile_rows=2)
    torch.testing.assert_close(columns.exp(), weights @ (9 * x @ y.T).exp())


def test_a_second_backward_is_refused():
    """The first one used up what it scaled."""
    image, text = random_features(4, 3, seed=0).requires_grad_(), random_features(4, 3, seed=1)
    loss = info_nce(image, text, torch.tensor(5.0, dtype=torch.float64), tile_rows=3)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()


def test_a_tile_takes_the_memory_it_is_allowed():
    assert automatic_tile_rows(torch.device("cpu")) ** 2 * 4 == 2**20
    assert automatic_tile_rows(torch.device("cuda")) ** 2 * 4 == 2**26
