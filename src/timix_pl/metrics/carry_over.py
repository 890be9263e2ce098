"""Quality of patch-text alignment scores on images without boxes: the deletion test, and own against other captions."""

from jaxtyping import Float
from torch import Tensor

from timix_pl.metrics.ranking import roc_auc


def carry_over_metrics(
    drop_best: Float[Tensor, " N"], drop_least: Float[Tensor, " N"], own_scores: Float[Tensor, " N"], other_scores: Float[Tensor, " N"]
) -> dict[str, float]:
    """The deletion test, and the ROC AUC of own against other captions.

    Args:
        drop_best: the drop of the cosine of image and caption when the window that the caption describes best is blanked.
        drop_least: the same, for the window that the caption describes least.
        own_scores: mean patch score of each image with its own caption.
        other_scores: the same, with the caption of another image.
    Source: after the deletion metric of Petsiuk et al. 2018, "RISE: Randomized input sampling for explanation of black-box models". They
        delete pixels one after another; here one window is blanked.
    """
    return {
        "best_over_least": (drop_best > drop_least).double().mean().item(),
        "drop_best": drop_best.double().mean().item(),
        "drop_least": drop_least.double().mean().item(),
        "roc_auc": roc_auc(own_scores, other_scores),
    }


def carry_over_chance(drop_random: Float[Tensor, " N"]) -> dict[str, float]:
    """The metrics of randomly chosen windows; names as in ``carry_over_metrics``.

    Args:
        drop_random: the drop of a random window of the same size.
    """
    mean_drop = drop_random.double().mean().item()
    return {"best_over_least": 0.5, "drop_best": mean_drop, "drop_least": mean_drop, "roc_auc": 0.5}
