"""A metric in words: its label, its value and how far it is from chance."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True)
class Figure:
    """One metric and, where it is known, the level of chance.

    ``name`` is the metric's stable name, e.g. ``retrieval/image_to_text/recall_at_1``.
    """

    name: str
    value: float
    chance: float | None = None

    @property
    def group(self) -> str:
        name = words(self.name.split("/")[0])
        return name.capitalize() if name.islower() else name

    @property
    def label(self) -> str:
        return ", ".join(words(part) for part in self.name.split("/")[1:]) or words(self.name)

    @property
    def is_share(self) -> bool:
        return unit(self.name) is Unit.share

    @property
    def times_chance(self) -> float | None:
        """How many times better than chance; None where chance is unknown, zero or negative."""
        if unit(self.name) is Unit.nats:
            return None
        better, worse = (self.chance, self.value) if lower_is_better(self.name) else (self.value, self.chance)
        return better / worse if better is not None and worse is not None and better >= 0 < worse else None

    @property
    def value_text(self) -> str:
        return value_text(self.name, self.value)

    @property
    def chance_text(self) -> str:
        return "-" if self.chance is None else value_text(self.name, self.chance).removesuffix(" nats")

    @property
    def times_text(self) -> str:
        times = self.times_chance
        if times is None or not math.isfinite(times):
            return ""
        return f"{times:,.0f} ×" if times >= 10 else f"{times:.1f} ×"


def figures(metrics: Mapping[str, float], chance: Mapping[str, float]) -> list[Figure]:
    """Final figures in the order of ``metrics``."""
    return [Figure(name, value, chance.get(name)) for name, value in metrics.items()]


class Unit(Enum):
    """What a metric's number is: a share between 0 and 1, a caption's score (shown times 100, as papers have it), a rank from 1, nats, or a
    number on a scale of its own.
    """

    share = auto()
    score = auto()
    rank = auto()
    nats = auto()
    number = auto()


_SCORES = ("bleu", "rouge", "cider")
_NUMBERS = ("similarity", "drop", "calibration", "brier")
"""What the parts of a metric's name hold that is no share: cosines, differences, errors of calibration."""


def unit(name: str) -> Unit:
    """The unit of a metric, by its stable name."""
    words_of_name = re.split(r"[/_]", name)
    if name.endswith("_rank"):
        return Unit.rank
    if name.startswith("mutual_information/") or "loss" in words_of_name or "nats" in words_of_name:
        return Unit.nats
    if set(words_of_name).intersection(_SCORES):
        return Unit.score
    return Unit.number if set(words_of_name).intersection(_NUMBERS) else Unit.share


def lower_is_better(name: str) -> bool:
    """Whether a metric is a rank, an error, a loss, the gap between training and held-out pairs, or what blanking an unimportant part of an
    image costs. The loss of misaligned pairs is better high, and so is its distance from that of aligned ones.
    """
    return name.endswith(("_rank", "_error", "_brier_score", "drop_least", "/loss", "loss_aligned", "information/gap", "/gap_mixed"))


_WORDS = {
    "info_nce": "InfoNCE",
    "siglip": "SigLIP",
    "patch_text": "patch-text",
    "patch_ap": "patch AP",
    "patch_brier_score": "patch Brier score",
    "map_at_10": "mAP at 10",
    "zero_shot": "zero-shot",
    "roc_auc": "ROC AUC",
}
_WORDS |= {"vqa": "VQA", "cider_d": "CIDEr-D", "rouge_l": "ROUGE-L", "held_out": "held-out", "knn": "kNN"} | {
    f"bleu_{n}": f"BLEU-{n}" for n in range(1, 5)
}
_WORDS |= {"data_wait_frac": "waiting for data", "optimizer_frac": "optimizer", "collectives_frac": "collectives"}


def words(name: str) -> str:
    """One part of a stable name as people write it: 'recall_at_1' as 'recall at 1', 'info_nce' as 'InfoNCE'."""
    return _WORDS.get(name, name.replace("_", " "))


def value_text(name: str, value: float) -> str:
    """The value of a metric for people: a share of 0.631 as '63.1%', a rank as '3.5' or '12,000', a caption's score as '63.1'."""
    if not math.isfinite(value):
        return "undefined"
    kind = unit(name)
    if kind is Unit.rank:
        return f"{value:,.1f}".removesuffix(".0")
    if kind is Unit.score:
        return f"{value * 100:.1f}"
    if kind is not Unit.share:
        return f"{value:.3f}" + " nats" * (kind is Unit.nats)
    return f"{value * 100:.1f}%" if value == 0 or value >= 0.001 else f"{value * 100:.2g}%"


def count_text(count: int | Mapping[str, int]) -> str:
    """A number of samples for people: '1,234', or by set '1,500 train + 9 held-out'."""
    return f"{count:,}" if isinstance(count, int) else " + ".join(f"{of_set:,} {words(name)}" for name, of_set in count.items())
