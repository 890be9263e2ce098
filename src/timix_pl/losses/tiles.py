"""Contrastive losses computed tile by tile. They need memory for a few tiles of logits and the features' gradients, never for all logits.

With logits L = scale * x @ y.T + bias, each loss is a convex potential of L minus the sum of L under targets T, which are constants:

    loss = potential(L) - sum(T * L), with the derivative G = potential'(L) - T with respect to L

InfoNCE: the potential is a weighted sum of the logsumexps of rows and columns; its derivative is a sum of softmaxes. The loss is the
cross-entropy of the softmaxes with T. Sigmoid loss: the potential is a weighted sum of softplus; its derivative is a sigmoid. The loss is
the binary cross-entropy with T.

The targets are T = W @ D. W (images by captions) has the share of each caption in each image. D (captions by captions) has the targets of
an image with a single caption: that caption (:class:`OneHots`), or the softmaxes or sigmoids of the clean pass (:class:`SelfTargets`),
which are computed one block of columns at a time.

One sweep over the tiles computes L and G, and adds up G @ y and G.T @ x, the gradients of the features. The backward pass only scales them.
Softmaxes need the logsumexps of whole rows and columns, which a first sweep computes.
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
    """A positive function of each logit, its row and its column."""

    def tile(self, logits: Float[Tensor, "r c"], rows: slice, columns: slice) -> Float[Tensor, "r c"]:
        """The values on a tile of the logits, as a new tensor."""
        ...


class Potential(Density, Protocol):
    """A potential; as a :class:`Density` it is its derivative."""

    def value(self, logits: Float[Tensor, "r c"]) -> Tensor | float:
        """The part of the potential that a tile contributes."""
        ...


class Softmaxes(NamedTuple):
    """exp(L - rows) + exp(L - columns + shift): the weighted softmaxes of rows and of columns.

    ``rows`` and ``columns`` are logsumexps minus the logarithms of the weights; infinite where a weight is 0.
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
        """0, because the potential is a sum of logsumexps, which the caller knows before the sweep."""
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
    """A diagonal D, with a weight for each caption. This rank's captions are those from position ``first``."""

    weights: Float[Tensor, " K"]
    first: int


class SelfTargets(NamedTuple):
    """D is the density of the logits of the clean images ``x``."""

    x: Float[Tensor, "B D"]
    density: Density


class Terms(NamedTuple):
    """The definition of a loss: its potential, and W (``pairs``) and D (``targets``) of its targets."""

    potential: Potential
    pairs: Pairs
    targets: OneHots | SelfTargets


class Logsumexps(NamedTuple):
    """The logsumexps of the rows and columns of the logits."""

    rows: Float[Tensor, " N"]
    columns: Float[Tensor, " K"]


def automatic_tile_rows(device: torch.device) -> int:
    """Side of a square tile of fp32 logits: 1 MiB on a CPU, 64 MiB on other devices. About four tiles exist at a time."""
    # 1 MiB fits into the cache of a CPU core; a GPU needs larger tiles to be busy.
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
    """The logsumexps of scale * x @ y.T, without gradient. ``log_weights`` of the rows are added only for the columns' logsumexps."""
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
    """The loss of the logits scale * x @ y.T + bias, with gradients for x, y, scale and bias. ``terms`` are treated as constants.

    Args:
        tile_rows: side of a square tile; None: :func:`automatic_tile_rows`.
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
        """Scale the gradients that the forward pass has computed."""
        # In place, to save memory. A second backward pass through the same graph raises an error.
        return *(None if gradient is None else gradient.mul_(factors[0]) for gradient in ctx.saved_tensors), None, None


def _sweep(
    x: Tensor, y: Tensor, scale: Tensor, bias: Tensor | None, terms: Terms, tile_rows: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """The loss and its derivatives with respect to x, y, scale and bias."""
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
