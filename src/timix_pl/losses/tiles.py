"""Contrastive losses tile by tile: memory for the features' gradients and a few tiles of logits, never for all logits.

With logits L = scale * x @ y.T + bias, each loss is a convex potential of L less the mean of L under targets T, which are constants:

    loss = potential(L) - sum(T * L), and its derivative in L is W = potential'(L) - T

InfoNCE's potential is a weighted sum of the logsumexps of rows and columns, and its derivative a sum of softmaxes: the cross-entropy of the
softmaxes with T. The sigmoid loss's is a weighted sum of softplus, with sigmoids for derivatives: the binary cross-entropy with T.

T is W @ D: W says which captions an image contains, in which shares, and D (captions by captions) what an image of one caption alone is to
be matched with: that caption, or what the clean pass says, which is made of softmaxes or sigmoids again, column block by column block.

One sweep over the tiles makes L and W, and adds up W @ y and W.T @ x, the gradients of the features; backward only scales them. Softmaxes
need the logsumexps of whole rows and columns first, which cost a sweep of their own.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from timix_pl.losses.pairs import Pairs

TILE_BYTES = {"cpu": 1 << 20, "cuda": 64 << 20}


class Density(Protocol):
    """Something positive for each logit, weighted by row and column."""

    def tile(self, logits: Float[Tensor, "r c"], rows: slice, columns: slice) -> Float[Tensor, "r c"]:
        """Its values on a tile of the logits, as a new tensor."""
        ...


class Potential(Density, Protocol):
    """The derivative of a potential, and the potential itself."""

    def value(self, logits: Float[Tensor, "r c"]) -> Tensor | float:
        """What a tile adds to the potential."""
        ...


class Softmaxes(NamedTuple):
    """exp(L - rows) + exp(L - columns + shift), the softmaxes over rows and over columns.

    ``rows`` and ``columns`` are logsumexps less the logarithms of the weights; infinite where a weight is 0.
    """

    rows: Float[Tensor, " N"]
    columns: Float[Tensor, " K"]
    shift: Float[Tensor, " N"] | None = None

    def tile(self, logits: Float[Tensor, "r c"], rows: slice, columns: slice) -> Float[Tensor, "r c"]:
        """See :class:`Density`."""
        by_column = logits - self.columns[columns]
        if self.shift is not None:
            by_column += self.shift[rows, None]
        return by_column.exp_().add_((logits - self.rows[rows, None]).exp_())

    def value(self, logits: Float[Tensor, "r c"]) -> float:
        """Nothing: the potential is a sum of logsumexps, which are known before the sweep."""
        return 0.0


class Sigmoids(NamedTuple):
    """weight * sigmoid(L), the derivative of weight * softplus(L)."""

    weight: float

    def tile(self, logits: Float[Tensor, "r c"], rows: slice, columns: slice) -> Float[Tensor, "r c"]:
        """See :class:`Density`."""
        return logits.sigmoid().mul_(self.weight)

    def value(self, logits: Float[Tensor, "r c"]) -> Float[Tensor, ""]:
        """softplus(L) is -log sigmoid(-L)."""
        return -self.weight * F.logsigmoid(-logits).sum()


class OneHots(NamedTuple):
    """D with weights on its diagonal, one for each caption; this rank's are those from ``first`` on."""

    weights: Float[Tensor, " K"]
    first: int


class SelfTargets(NamedTuple):
    """D with the density of the logits of the clean images ``x``."""

    x: Float[Tensor, "B D"]
    density: Density


class Terms(NamedTuple):
    """What makes a loss of logits: its potential, and W and D of its targets."""

    potential: Potential
    pairs: Pairs
    targets: OneHots | SelfTargets


class Logsumexps(NamedTuple):
    """Of the logits' rows and columns."""

    rows: Float[Tensor, " N"]
    columns: Float[Tensor, " K"]


def automatic_tile_rows(device: torch.device) -> int:
    """Rows and columns of a tile of 1 MiB, for a CPU core's cache, or of 64 MiB, to keep a GPU busy. Four or so exist at a time."""
    return math.isqrt(TILE_BYTES["cpu" if device.type == "cpu" else "cuda"] // torch.float32.itemsize)


@torch.no_grad()
def logsumexps(
    x: Float[Tensor, "N D"],
    y: Float[Tensor, "K D"],
    scale: Float[Tensor, "..."],
    *,
    log_weights: Float[Tensor, " N"] | None = None,
    tile_rows: int | None = None,
) -> Logsumexps:
    """Of scale * x @ y.T, without gradient. ``log_weights`` of the rows count in the columns' logsumexps alone."""
    tile_rows = tile_rows or automatic_tile_rows(x.device)
    over_columns, over_rows = x.new_full((len(x),), -math.inf), x.new_full((len(y),), -math.inf)
    for rows in _blocks(len(x), tile_rows):
        scaled = scale * x[rows]
        for columns in _blocks(len(y), tile_rows):
            logits = scaled @ y[columns].T
            over_columns[rows] = torch.logaddexp(over_columns[rows], logits.logsumexp(1))
            if log_weights is not None:
                logits += log_weights[rows, None]
            over_rows[columns] = torch.logaddexp(over_rows[columns], logits.logsumexp(0))
    return Logsumexps(over_columns, over_rows)


def tiled_loss(
    x: Float[Tensor, "N D"],
    y: Float[Tensor, "K D"],
    scale: Float[Tensor, "..."],
    bias: Float[Tensor, "..."] | None,
    terms: Terms,
    *,
    tile_rows: int | None = None,
) -> Float[Tensor, ""]:
    """The loss of the logits scale * x @ y.T + bias, with gradients to all four; ``terms`` are constants to them.

    Args:
        tile_rows: rows and columns of a tile; None: :func:`automatic_tile_rows`.
    """
    loss: Tensor = _TiledLoss.apply(x, y, scale, bias, terms, tile_rows or automatic_tile_rows(x.device))
    return loss


class _TiledLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, scale: Tensor, bias: Tensor | None, terms: Terms, tile_rows: int) -> Tensor:
        loss, *gradients = _sweep(x, y, scale, bias, terms, tile_rows)
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *factors: Tensor) -> tuple[Tensor | None, ...]:
        """In place, for the memory's sake: autograd refuses a second time."""
        return *(None if gradient is None else gradient.mul_(factors[0]) for gradient in ctx.saved_tensors), None, None


def _sweep(
    x: Tensor, y: Tensor, scale: Tensor, bias: Tensor | None, terms: Terms, tile_rows: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """The loss and its derivatives in x, y, scale and bias."""
    loss, dx, dy, dscale = x.new_zeros(()), torch.zeros_like(x), torch.zeros_like(y), torch.zeros_like(scale)
    dbias = None if bias is None else torch.zeros_like(bias)
    potential, pairs, targets = terms
    for columns in _blocks(len(y), tile_rows):
        if isinstance(targets, SelfTargets):
            clean = x.new_empty(len(targets.x), columns.stop - columns.start)
            for rows in _blocks(len(targets.x), tile_rows):
                clean[rows] = targets.density.tile(_logits(scale * targets.x[rows], y[columns], bias), rows, columns)
        for rows in _blocks(len(x), tile_rows):
            scaled = scale * x[rows]
            logits = _logits(scaled, y[columns], bias)
            loss += potential.value(logits)
            weights = potential.tile(logits, rows, columns)
            if isinstance(targets, SelfTargets):
                mixed = torch.lerp(clean[pairs.partner[rows]], clean[pairs.own[rows]], pairs.lam[rows, None])
                weights -= mixed
                loss -= mixed.mul_(logits).sum()
            dx[rows].addmm_(weights, y[columns])
            dy[columns].addmm_(weights.T, scaled)
            if dbias is not None:
                dbias += weights.sum()
    for rows in _blocks(len(x), tile_rows):
        if isinstance(targets, OneHots):
            for caption, share in pairs.parts():
                at = caption[rows] + targets.first
                weights = (share[rows] * targets.weights[at])[:, None]
                scaled, mean = scale * x[rows], weights * y[at]
                loss -= (scaled * mean).sum()
                dx[rows] -= mean
                dy.index_add_(0, at, weights * scaled, alpha=-1)
                if bias is not None and dbias is not None:
                    loss -= (bias * weights).sum()
                    dbias -= weights.sum()
        dscale += (x[rows] * dx[rows]).sum()
        dx[rows] *= scale
    return loss, dx, dy, dscale, dbias


def _logits(scaled: Tensor, y: Tensor, bias: Tensor | None) -> Tensor:
    logits = scaled @ y.T
    return logits if bias is None else logits.add_(bias)


def _blocks(size: int, block: int) -> Iterator[slice]:
    return (slice(start, min(start + block, size)) for start in range(0, size, block))
