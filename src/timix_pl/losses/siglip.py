"""Pairwise sigmoid loss, with hard or soft labels."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def siglip(logits: Float[Tensor, "B G"], first: int = 0) -> Float[Tensor, ""]:
    """The sigmoid loss of this rank's images against all captions.

    Args:
        logits: logit_scale * image @ text.T + logit_bias.
        first: position of row 0 in the global batch.
    Returns:
        Sum over captions, mean over B, in nats; its average over ranks is the full-batch loss.
    Source: Zhai et al. 2023, equation 1: the mean over images of the sum over captions of -log sigmoid(z * logit), z = 1 for the pair,
        else -1.
    """
    rows = torch.arange(len(logits), device=logits.device)
    labels = torch.zeros_like(logits)
    labels[rows, rows + first] = 1
    return soft_siglip(logits, labels)


def soft_siglip(logits: Float[Tensor, "M G"], labels: Float[Tensor, "M G"]) -> Float[Tensor, ""]:
    """The sigmoid loss where a pair may match in part.

    Let a pair's label be drawn: z = 1 with probability w, else -1. The expected loss of the pair is
    -w log sigmoid(l) - (1 - w) log sigmoid(-l), and with log sigmoid(l) = l + log sigmoid(-l) this is softplus(l) - w l: binary
    cross-entropy with the soft label w. For w of 0 and 1 it is the hard loss; its minimum is at sigmoid(l) = w, so a mixed image is
    asked to match its own caption with probability lam and its partner's with 1 - lam. Pairs are judged one by one, so no column needs
    normalising.

    Args:
        labels: 0 to 1; for mixed images the matrix W, or with self targets lam times the own image's probabilities and 1 - lam times the
            partner's.
    Returns:
        Sum over captions, mean over M, in nats.
    """
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / len(logits)
