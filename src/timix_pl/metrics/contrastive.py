"""InfoNCE of each pair of a batch, from which bounds on the mutual information follow."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def pair_losses(image_features: Float[Tensor, "K D"], text_features: Float[Tensor, "K D"], logit_scale: float) -> Float[Tensor, " K"]:
    """Each pair's InfoNCE among the K pairs, averaged over both directions, in nats; computed in fp64.

    Args:
        image_features: L2-normalised, as ``text_features`` are; row n of both is one pair.
        logit_scale: inverse temperature, already exponentiated.
    """
    logits = logit_scale * image_features.double() @ text_features.double().T
    return (logits.logsumexp(0) + logits.logsumexp(1)) / 2 - logits.diagonal()


def mixed_losses(
    mixed_features: Float[Tensor, "K D"],
    text_features: Float[Tensor, "K D"],
    logit_scale: float,
    own: Int[Tensor, " K"],
    partner: Int[Tensor, " K"],
    lam: Float[Tensor, " K"],
) -> Float[Tensor, " K"]:
    """Each mixed image's cross-entropy over the K captions with the targets lam and 1 - lam, in nats; computed in fp64.

    Args:
        mixed_features: L2-normalised, as ``text_features`` are.
        logit_scale: inverse temperature, already exponentiated.
        own, partner: rows of ``text_features``.
        lam: the share of the image that belongs to its own caption.
    """
    logits = logit_scale * mixed_features.double() @ text_features.double().T
    rows = torch.arange(len(logits))
    return logits.logsumexp(1) - lam.double() * logits[rows, own] - (1 - lam.double()) * logits[rows, partner]


def binary_entropy(lam: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
    """The entropy of lam and 1 - lam, in nats, in fp64: the minimum of :func:`mixed_losses`."""
    lam = lam.double()
    return -torch.xlogy(lam, lam) - torch.xlogy(1 - lam, 1 - lam)
