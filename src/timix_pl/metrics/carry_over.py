"""How well patch-text alignment's scores hold on images without boxes: what blanking a window costs, and whose caption scores higher."""

from jaxtyping import Float
from torch import Tensor

from timix_pl.metrics.ranking import roc_auc


def carry_over_metrics(
    drop_best: Float[Tensor, " N"], drop_least: Float[Tensor, " N"], own_scores: Float[Tensor, " N"], other_scores: Float[Tensor, " N"]
) -> dict[str, float]:
    """The deletion test and the ROC AUC of own against other captions.

    Args:
        drop_best: by how much the cosine of image and caption drops when the window that the caption describes best is blanked.
        drop_least: likewise, of the window that it describes least.
        own_scores: mean patch score of each image under its own caption.
        other_scores: likewise, under another image's.
    Source: after Petsiuk et al. 2018, "RISE: Randomized input sampling for explanation of black-box models", the deletion metric; there
    pixels go one after the other, here one window goes.
    """
    return {
        "best_over_least": (drop_best > drop_least).double().mean().item(),
        "drop_best": drop_best.double().mean().item(),
        "drop_least": drop_least.double().mean().item(),
        "roc_auc": roc_auc(own_scores, other_scores),
    }


def carry_over_chance(drop_random: Float[Tensor, " N"]) -> dict[str, float]:
    """What windows chosen without looking give, under the names of ``carry_over_metrics``.

    Args:
        drop_random: the drop of a random window of the same size.
    """
    mean_drop = drop_random.double().mean().item()
    return {"best_over_least": 0.5, "drop_best": mean_drop, "drop_least": mean_drop, "roc_auc": 0.5}
