"""Carry-over: do patch-text alignment's scores mean something on images that differ from those whose boxes taught it."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from timix_pl.core.choices import EVALUATORS
from timix_pl.core.errors import DataError
from timix_pl.core.metric import Metric, Unit
from timix_pl.core.randomness import integer
from timix_pl.core.types import EvaluationResult, Windows
from timix_pl.data.sets.evaluation_set import EvaluationItem
from timix_pl.evaluation.batches import EvaluationBatch, map_batches, require_captions
from timix_pl.evaluation.evaluator import Evaluator, LeftOut, RunToEvaluate
from timix_pl.evaluation.model import DualEncoderLike, evaluating
from timix_pl.evaluation.results import named
from timix_pl.metrics.carry_over import carry_over_chance, carry_over_metrics
from timix_pl.mixing.windows import corners, paste, side_range, window_sums


class _Judged(NamedTuple):
    """Of B images the drops in similarity by the best described, the least described and a random window, and the mean score."""

    drops: Float[Tensor, "B 3"]
    scores: Float[Tensor, " B"]
    captions: list[str]


@EVALUATORS.register("carry_over")
class CarryOver(Evaluator):
    """Judges patch scores without boxes, on any pairs.

    Does blanking the window that a caption describes best cost more similarity of image and caption than blanking another one? Does an
    image's own caption score higher than another image's?

    Args:
        dataset: images with captions, of which the first is used; two different ones at least.
        batch_size: images per forward pass on each rank.
        num_workers: loader processes per rank.
        min_side, max_side: of the window, as in TiMix; its side here is the middle of those that TiMix draws from, rounded down.
    """

    title = "carry over"
    gathered: ClassVar[Mapping[str, str]] = {"dataset": "data.val_shards", "min_side": "mixing.min_side", "max_side": "mixing.max_side"}
    metrics: ClassVar[Mapping[str, Metric]] = {
        "best_over_least": Metric(Unit.share, higher_is_better=True, label="best over least", chance="a coin toss"),
        "drop_best": Metric(higher_is_better=True, label="drop best", chance="a random window"),
        "drop_least": Metric(higher_is_better=False, label="drop least", chance="a random window"),
        "roc_auc": Metric(Unit.share, higher_is_better=True, label="ROC AUC", chance="a random order"),
    }

    def __init__(
        self,
        dataset: Dataset[EvaluationItem],
        *,
        batch_size: int,
        num_workers: int = 0,
        min_side: float = 0.35,
        max_side: float = 0.75,
    ):
        self.dataset = dataset
        self.loading = {"batch_size": batch_size, "num_workers": num_workers}
        self.min_side, self.max_side = min_side, max_side

    @classmethod
    def gather(cls, run: RunToEvaluate) -> dict[str, Any]:
        """See :class:`Evaluator`."""
        if run.model.pta is None:
            raise LeftOut("the model has no PTA head")
        return super().gather(run) | {name: run.value(cls.gathered[name]) for name in ("min_side", "max_side")}

    def run(self, model: DualEncoderLike, device: torch.device) -> EvaluationResult:
        """The deletion test and the ROC AUC of own against other captions; the same on every rank.

        Args:
            model: lies on ``device`` already.
        Raises:
            DataError: an image has no caption or cannot be read, or all captions are the same.
            ModelError: the model has no patch-text alignment head.
            ShapeError: the patch grid is too small for a window.
        """

        def judge(batch: EvaluationBatch) -> _Judged:
            require_captions(batch, "carry_over")
            captions = [of_image[0] for of_image in batch.captions]
            images, tokens = batch.images.to(device), model.tokenizer(captions).to(device)
            logits, texts = model.patch_scores(images, tokens).float(), model.encode_text(tokens)
            similarity = [(model.encode_image(seen) * texts).sum(dim=1) for seen in (images, *self._blanked(images, logits, batch.keys))]
            drops = torch.stack([similarity[0] - blanked for blanked in similarity[1:]], dim=1)
            return _Judged(drops.float().cpu(), logits.mean(dim=(1, 2)).cpu(), captions)

        def score(batch: EvaluationBatch) -> Tensor:
            tokens = model.tokenizer([caption for (caption,) in batch.captions])
            return model.patch_scores(batch.images.to(device), tokens.to(device)).float().mean(dim=(1, 2)).cpu()

        with evaluating(model):
            judged = map_batches(self.dataset, judge, **self.loading)
            others = _captions_of_others([caption for batch in judged for caption in batch.captions])
            other_scores = torch.cat(map_batches(_Captioned(self.dataset, others), score, **self.loading))
        best, least, random = torch.cat([batch.drops for batch in judged]).unbind(dim=1)
        own_scores = torch.cat([batch.scores for batch in judged])
        return named(self, carry_over_metrics(best, least, own_scores, other_scores), carry_over_chance(random))

    def _blanked(self, images: UInt8[Tensor, "B 3 H W"], logits: Float[Tensor, "B h w"], keys: list[str]) -> list[UInt8[Tensor, "B 3 H W"]]:
        """The images with the best described, the least described and a random window in their mean colour."""
        grid = (logits.shape[1], logits.shape[2])
        side = sum(side_range(grid, self.min_side, self.max_side)) // 2
        sums = window_sums(logits, side)
        num_columns, flat = sums.shape[2], sums.flatten(1)
        random = torch.tensor([integer(0, flat.shape[1] - 1, "carry_over", key) for key in keys], device=images.device)
        return [_blank(images, corners(chosen, num_columns), side, grid) for chosen in (flat.argmax(1), flat.argmin(1), random)]


def _blank(images: UInt8[Tensor, "B 3 H W"], corner: Int[Tensor, "B 2"], side: int, grid: tuple[int, int]) -> UInt8[Tensor, "B 3 H W"]:
    rows = torch.arange(len(images), device=images.device)
    seen = images.float()
    flat = seen.mean(dim=(2, 3), keepdim=True).round().expand_as(seen)
    return paste(torch.cat([seen, flat]), rows, rows + len(rows), Windows(side, corner, corner), grid).to(images.dtype)


def _captions_of_others(captions: list[str]) -> list[str]:
    """For each caption the next one, cyclically, that differs from it."""
    first_other = next((caption for caption in captions if caption != captions[0]), None)
    if first_other is None:
        raise DataError(
            f"All {len(captions)} images have the same first caption, and carry_over compares it with another image's. "
            "Choose another `dataset`, or leave carry_over out of `evaluators`."
        )
    others = [captions[0] if captions[0] != captions[-1] else first_other]
    for caption, following in zip(reversed(captions[:-1]), reversed(captions[1:]), strict=True):
        others.append(following if following != caption else others[-1])
    return others[::-1]


class _Captioned(Dataset[EvaluationItem]):
    """The data set with one other caption for each image."""

    def __init__(self, dataset: Dataset[EvaluationItem], captions: list[str]):
        self.dataset, self.captions = dataset, captions

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, number: int) -> EvaluationItem:
        return self.dataset[number]._replace(captions=(self.captions[number],))
