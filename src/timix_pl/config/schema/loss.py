"""``loss.*``: the contrastive loss, and further terms."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from timix_pl.config.facts import When, option
from timix_pl.config.rules import COUNT
from timix_pl.core.choices import LOSS_TERMS, LOSSES

Negatives = StrEnum("Negatives", ["all_ranks", "own_rank"])

PRETRAINING = [When("task", "pretrain")]


@dataclass
class LossConfig:
    """The contrastive loss, and further terms."""

    kind: str = option(
        "info_nce",
        "The contrastive loss.",
        registry=LOSSES,
        of_model=True,
        on_card=True,
    )
    terms: list[str] = option([], "Further terms of the loss.", registry=LOSS_TERMS, used=PRETRAINING)
    options: dict[str, Any] = option(
        {},
        "Options that only the chosen loss has: loss.options.NAME=VALUE; options of a further term: loss.options.TERM.NAME=VALUE.",
        used=PRETRAINING,
    )
    negatives: Negatives = option(
        Negatives.all_ranks,
        "all_ranks: negatives come from the global batch; own_rank: only from the rank's own batch.",
        used=PRETRAINING,
    )
    tile_rows: int | None = option(
        None,
        "Side of the square tiles in which logits are computed, to save memory; null: 512 on CPU, 4096 on a GPU. The loss is the same.",
        within=COUNT,
        used=PRETRAINING,
    )
