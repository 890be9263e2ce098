"""Random features and plans for the losses' tests."""

import numpy as np
import torch
import torch.nn.functional as F

from timix_pl.losses.pairs import Pairs


def random_features(num_rows, dim, seed, *, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(num_rows, dim, generator=draw, dtype=dtype), dim=-1)


def random_pairs(num_captions, num_mixed, seed, *, dtype=torch.float64):
    """Mixed images of distinct own captions, each with another partner."""
    rng = np.random.default_rng(seed)
    own = rng.permutation(num_captions)[:num_mixed]
    partner = (own + rng.integers(1, num_captions, num_mixed)) % num_captions
    lam = rng.uniform(0.1, 0.9, num_mixed)
    return Pairs(torch.from_numpy(own), torch.from_numpy(partner), torch.from_numpy(lam).to(dtype))


def dense_w(pairs, num_captions):
    """W entry by entry."""
    w = np.zeros((len(pairs.own), num_captions))
    for m, (own, partner, lam) in enumerate(zip(pairs.own.tolist(), pairs.partner.tolist(), pairs.lam.tolist(), strict=True)):
        w[m, own] += lam
        w[m, partner] += 1 - lam
    return w


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def value_and_gradients(loss, *leaves):
    """Of a function of tensors."""
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    value = loss(*leaves)
    return value.detach().reshape(()), *torch.autograd.grad(value, leaves)
