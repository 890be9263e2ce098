"""A linear classifier on frozen features, and the choice of its regularisation."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


class LinearClassifier(NamedTuple):
    """Logits are ``features @ weight.T + bias``."""

    weight: Float[Tensor, "C D"]
    bias: Float[Tensor, " C"]


def fit_linear(
    features: Float[Tensor, "N D"],
    labels: Int[Tensor, " N"],
    num_classes: int,
    inverse_penalty: float,
    *,
    max_iter: int = 1000,
    max_logits: int = 2**26,
) -> LinearClassifier:
    """Multinomial logistic regression by full-batch L-BFGS, on the device of the features.

    Minimises ``inverse_penalty`` * the sum of the cross-entropies + |weight|^2 / 2, without a penalty on the bias, like scikit-learn's
    ``LogisticRegression`` with ``C=inverse_penalty``.

    Args:
        max_logits: largest number of logits computed at once, to limit memory. At least one row is computed at once.
    """
    num_rows, dim = features.shape
    weight = features.new_zeros(num_classes, dim, requires_grad=True)
    bias = features.new_zeros(num_classes, requires_grad=True)
    centre = features.mean(dim=0)  # centring conditions the problem better; the bias absorbs it
    rows_per_chunk = max(1, max_logits // num_classes)

    def loss_and_gradient() -> Tensor:
        with torch.no_grad():
            loss = weight.square().sum() / (2 * inverse_penalty * num_rows)
            weight.grad, bias.grad = weight / (inverse_penalty * num_rows), torch.zeros_like(bias)
            for rows, classes in zip(features.split(rows_per_chunk), labels.split(rows_per_chunk), strict=True):
                centred = rows - centre
                log_probabilities = F.log_softmax(centred @ weight.T + bias, dim=1)
                loss += F.nll_loss(log_probabilities, classes, reduction="sum") / num_rows
                residual = log_probabilities.exp_()
                residual[torch.arange(len(rows), device=rows.device), classes] -= 1
                weight.grad += residual.T @ centred / num_rows
                bias.grad += residual.sum(dim=0) / num_rows
        return loss

    optimizer = torch.optim.LBFGS([weight, bias], max_iter=max_iter, tolerance_grad=1e-6, line_search_fn="strong_wolfe")
    optimizer.step(loss_and_gradient)
    found = weight.detach()
    return LinearClassifier(found, bias.detach() - found @ centre)


def search_inverse_penalty(accuracies: Callable[[list[float]], list[float]]) -> float:
    """The inverse penalty with the best accuracy; the smallest of equal ones.

    Tries 1e-6, 1e-4, ... 1e6, then the two values around the best at half the distance, and so on, down to an eighth of a decade.

    Args:
        accuracies: gives the accuracy for each of several inverse penalties.
    Source: Radford et al. 2021, appendix A.3.
    """
    found: dict[float, float] = {}
    exponents, step = [float(exponent) for exponent in range(-6, 7, 2)], 2.0
    while True:
        found |= zip(exponents, accuracies([10.0**exponent for exponent in exponents]), strict=True)
        best = max(found, key=lambda exponent: (found[exponent], -exponent))
        if step == 1 / 8:
            return 10.0**best
        step /= 2
        exponents = [best - step, best + step]
