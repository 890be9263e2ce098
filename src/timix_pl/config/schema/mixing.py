"""``mixing.*``: how images are mixed, how many, and how strongly."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from timix_pl.config.facts import AnyOf, TakenBy, Trait, Unless, When, option
from timix_pl.config.rules import NOT_NEGATIVE, POSITIVE, SHARE, Range
from timix_pl.core.choices import EVALUATORS, MIXERS

Compute = StrEnum("Compute", ["extra", "replace"])
Lam = StrEnum("Lam", ["area", "relevance"])
Targets = StrEnum("Targets", ["one_hot", "self"])

CHOSEN = [When("task", "pretrain"), Unless("mixing.kind", "none")]
MIXES = [*CHOSEN, Unless("mixing.ratio", 0.0)]
WINDOWS = [AnyOf(TakenBy(MIXERS), TakenBy(EVALUATORS))]


@dataclass
class MixingConfig:
    """Mixing."""

    kind: str = option(
        "timix",
        "Mixing strategy; none is plain CLIP.",
        registry=MIXERS,
        in_evaluation=True,
        on_card=True,
    )
    options: dict[str, Any] = option(
        {}, "Options that only the chosen strategy has: mixing.options.NAME=VALUE.", used=MIXES, in_evaluation=True
    )
    ratio: float = option(
        1.0, "Share of the rows of each group that are mixed; 0 is plain CLIP.", within=SHARE, used=CHOSEN, on_card=True, frequent=True
    )
    compute: Compute = option(
        Compute.extra, "extra: train on mixed images in addition to the clean ones; replace: instead of them.", used=MIXES, on_card=True
    )
    lam: Lam = option(
        Lam.area,
        "How much of a mixed image counts for its own caption. area: share of the pixels kept; relevance: share of the relevance kept.",
        used=[*MIXES, TakenBy(MIXERS)],
        in_evaluation=True,
    )
    targets: Targets = option(
        Targets.self,
        "Targets of the mixed loss. one_hot: the two captions of the mixed image; self: the softmax of the clean pass for each of them.",
        used=[*MIXES, Trait(MIXERS, "joins_captions", False)],
    )
    min_side: float = option(
        0.35,
        "Smallest side of the window, as a share of the patch grid's shorter side.",
        within=SHARE,
        used=WINDOWS,
        in_evaluation=True,
    )
    max_side: float = option(
        0.75, "Largest side of the window, as a share of the patch grid's shorter side.", within=SHARE, used=WINDOWS, in_evaluation=True
    )
    gamma: float = option(
        1.0,
        "compute=extra: weight of the loss of the mixed images.",
        within=NOT_NEGATIVE,
        used=[*MIXES, When("mixing.compute", Compute.extra)],
    )
    warmup_frac: float = option(
        0.0, "Share of the run over which gamma (compute=extra) or ratio (replace) rises from 0.", within=SHARE, used=MIXES
    )
    stop_frac: float = option(1.0, "Share of the run after which images are no longer mixed.", within=SHARE, used=MIXES)
    level: str = option(
        "pixels",
        "Where images are mixed: pixels; or tokens:k, the tokens after block k of the image tower (k=0: the patch embeddings).",
        used=MIXES,
        in_evaluation=True,
    )
    group_size: int = option(
        32, "Rows per group; partners come from the same group. Must divide the batch of a rank.", within=Range(2), used=MIXES
    )
    beta: float = option(
        1.0,
        "mixup: lam is drawn from the distribution Beta(beta, beta).",
        within=POSITIVE,
        used=[*MIXES, TakenBy(MIXERS)],
        in_evaluation=True,
    )
