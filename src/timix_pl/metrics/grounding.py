"""How well heat maps on the patch grid match the boxes of their phrases.

There are R phrases, each with a heat map of h by w patches (P = h * w) and one or more boxes (xyxy_norm). There are N boxes in total;
``phrase_of_box`` is the phrase of each. If a phrase has several boxes ("person"), any of them is right. Patches without a score (NaN) count
as wrong.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from timix_pl.metrics.boxes import all_boxes, box_iou, centres_inside, region_boxes

MIN_IOU = 0.5


def grounding_metrics(
    logits: Float[Tensor, "R h w"],
    boxes_xyxy_norm: Float[Tensor, "N 4"],
    phrase_of_box: Int[Tensor, " N"],
    patch_labels: Float[Tensor, "R P"],
) -> dict[str, float]:
    """Pointing, localisation, patch precision, recall and average precision, and calibration of the probabilities; each 0 to 1.

    ``pointing_centre`` is the pointing accuracy of the image's centre, a baseline that does not use the heat maps. Precision and recall are
    those of the patches with a probability of 0.5 or more. They, the average precision, the calibration error and the Brier score are
    computed over all patches of all phrases together. Precision is 0 if no patch is predicted; recall is 0 if no patch is positive.

    Args:
        logits: relevance of each patch for the phrase.
        patch_labels: 1 where the patch belongs to the phrase, else 0; patches row by row.
    """
    positive = patch_labels.flatten() > 0.5
    predicted = logits.flatten() >= 0
    num_right = (predicted & positive).sum().item()
    probabilities = logits.flatten().sigmoid()
    centre = _any_box(centres_inside(boxes_xyxy_norm, (1, 1)), phrase_of_box, len(logits))
    return {
        "pointing": pointing_hits(logits, boxes_xyxy_norm, phrase_of_box).double().mean().item(),
        "pointing_centre": centre.double().mean().item(),
        "localisation": localisation_hits(logits.double().sigmoid(), boxes_xyxy_norm, phrase_of_box).double().mean().item(),
        "patch_precision": num_right / max(predicted.sum().item(), 1),
        "patch_recall": num_right / max(positive.sum().item(), 1),
        "patch_ap": average_precision(logits.flatten(), positive),
        "patch_calibration_error": calibration_error(probabilities, positive),
        "patch_brier_score": (probabilities.double() - positive.double()).square().mean().item(),
    }


def grounding_chance(
    logits: Float[Tensor, "R h w"],
    boxes_xyxy_norm: Float[Tensor, "N 4"],
    phrase_of_box: Int[Tensor, " N"],
    patch_labels: Float[Tensor, "R P"],
) -> dict[str, float]:
    """The metrics of predictions that do not depend on the image; names and arguments as in ``grounding_metrics``.

    Both pointing metrics: a random patch. Localisation: the one box of whole patches that hits the most phrases. Patch precision and
    average precision: the share of positive patches. Patch recall: the share of patches that are predicted positive (as many random
    patches). Brier score: every patch has the share of positive patches as its probability. The calibration error has no level of chance,
    because for these probabilities it is 0.
    """
    num_phrases, num_rows, num_columns = logits.shape
    inside = _any_box(centres_inside(boxes_xyxy_norm, (num_rows, num_columns)), phrase_of_box, num_phrases)
    positive_share = patch_labels.double().mean().item()
    pointing = inside.double().mean().item()
    return {
        "pointing": pointing,
        "pointing_centre": pointing,
        "localisation": _best_fixed_box(boxes_xyxy_norm, phrase_of_box, num_phrases, (num_rows, num_columns)),
        "patch_precision": positive_share,
        "patch_recall": (logits >= 0).double().mean().item(),
        "patch_ap": positive_share,
        "patch_brier_score": positive_share * (1 - positive_share),
    }


def pointing_hits(
    scores: Float[Tensor, "R h w"], boxes_xyxy_norm: Float[Tensor, "N 4"], phrase_of_box: Int[Tensor, " N"]
) -> Bool[Tensor, " R"]:
    """Whether the centre of the best patch lies in a box of the phrase. If several patches are equally good, all must.

    Source: the pointing game of Zhang et al. 2016, "Top-down neural attention by excitation backprop", without its tolerance of 15 pixels.
    """
    num_phrases, num_rows, num_columns = scores.shape
    is_best = ~(scores < scores.amax(dim=(1, 2), keepdim=True))
    inside = _any_box(centres_inside(boxes_xyxy_norm, (num_rows, num_columns)), phrase_of_box, num_phrases)
    return (inside | ~is_best).flatten(1).all(dim=1)


def localisation_hits(
    probabilities: Float[Tensor, "R h w"], boxes_xyxy_norm: Float[Tensor, "N 4"], phrase_of_box: Int[Tensor, " N"]
) -> Bool[Tensor, " R"]:
    """Whether the box around the heat map's peak region (see ``peak_regions``) has an IoU of 0.5 or more with a box of the phrase."""
    found = region_boxes(peak_regions(probabilities))
    hits = _any_box(box_iou(found[phrase_of_box], boxes_xyxy_norm.double()) >= MIN_IOU, phrase_of_box, len(found))
    return hits & ~probabilities.isnan().flatten(1).any(dim=1)


def peak_regions(probabilities: Float[Tensor, "R h w"], threshold: float = 0.5) -> Bool[Tensor, "R h w"]:
    """The 4-connected region of patches around the best one whose probability is at least ``threshold`` times that of the best.

    Of equally good best patches, the first one in row order counts. The region contains at least that patch.

    Source: after Zhou et al. 2016, "Learning deep features for discriminative localization", section 3.2, which takes the largest region
        above 20% of the peak.
    """
    num_columns = probabilities.shape[2]
    peak = probabilities.flatten(1).argmax(dim=1)
    region = F.one_hot(peak, probabilities[0].numel()).bool().unflatten(1, (-1, num_columns))
    passable = region | (probabilities >= threshold * probabilities.amax(dim=(1, 2), keepdim=True))
    while True:
        grown = _with_neighbours(region) & passable
        if torch.equal(grown, region):
            return region
        region = grown


def _with_neighbours(region: Bool[Tensor, "R h w"]) -> Bool[Tensor, "R h w"]:
    cells = region.float()
    vertical = F.max_pool2d(cells, kernel_size=(3, 1), stride=1, padding=(1, 0))
    horizontal = F.max_pool2d(cells, kernel_size=(1, 3), stride=1, padding=(0, 1))
    return torch.maximum(vertical, horizontal).bool()


def average_precision(scores: Float[Tensor, " n"], is_positive: Bool[Tensor, " n"]) -> float:
    """Area under the precision-recall curve, as a sum over distinct scores; 0 if nothing is positive.

    NaN counts as wrong: a positive with it is ranked last, a negative first.

    Source: the definition of scikit-learn's ``average_precision_score``.
    """
    scores = torch.where(scores.isnan(), torch.where(is_positive, -torch.inf, torch.inf), scores)
    order = scores.argsort(descending=True)
    ranked_scores, ranked_positive = scores[order], is_positive[order]
    num_found = ranked_positive.cumsum(dim=0)
    ends_step = torch.cat([ranked_scores[1:] != ranked_scores[:-1], torch.ones_like(ranked_positive[:1])])
    found_by_step = num_found[ends_step]
    taken_by_step = ends_step.nonzero()[:, 0] + 1
    new_by_step = found_by_step.diff(prepend=torch.zeros_like(found_by_step[:1]))
    area = (new_by_step * found_by_step.double() / taken_by_step).sum()
    return (area / num_found[-1].clamp(min=1)).item()


def calibration_error(probabilities: Float[Tensor, " n"], is_positive: Bool[Tensor, " n"], num_bins: int = 15) -> float:
    """Expected calibration error: the distance between share of positives and mean probability per bin, weighted by the size of the bin.

    Args:
        probabilities: of being positive.
        num_bins: bins of equal width. A bin excludes its lower edge and includes its upper one; the first one also includes 0.
    Source: Guo et al. 2017, "On calibration of modern neural networks", equations 2, 3 and 5, which use the probability of the predicted
        class.
    """
    probabilities = probabilities.double()
    edges = torch.arange(1, num_bins, device=probabilities.device).double() / num_bins
    surplus = probabilities - is_positive.double()
    of_bin = surplus.new_zeros(num_bins).index_add_(0, torch.bucketize(probabilities, edges), surplus)
    return (of_bin.abs().sum() / len(probabilities)).item()


def _any_box(hits: Bool[Tensor, "N ..."], phrase_of_box: Int[Tensor, " N"], num_phrases: int) -> Bool[Tensor, "R ..."]:
    """Whether any of a phrase's boxes is hit."""
    num_hits = torch.zeros(num_phrases, *hits.shape[1:], dtype=torch.int32, device=hits.device)
    return num_hits.index_add_(0, phrase_of_box, hits.int()) > 0


def _best_fixed_box(
    boxes_xyxy_norm: Float[Tensor, "N 4"], phrase_of_box: Int[Tensor, " N"], num_phrases: int, grid: tuple[int, int]
) -> float:
    """The largest share of phrases that a single box of whole patches hits."""
    boxes = boxes_xyxy_norm.double()[:, None]
    return max(
        _any_box(box_iou(guesses, boxes) >= MIN_IOU, phrase_of_box, num_phrases).double().mean(dim=0).max().item()
        for guesses in all_boxes(grid).to(boxes.device).split(64)
    )
