"""InfoNCE's lower bound on the mutual information of images and captions: clean and mixed, on held-out and on training pairs."""

import logging
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from timix_pl.core.choices import EVALUATORS
from timix_pl.core.metric import Metric, Unit
from timix_pl.core.types import EvaluationResult
from timix_pl.data.sets.evaluation_set import EvaluationItem
from timix_pl.evaluation.evaluator import Evaluator, LeftOut, RunToEvaluate
from timix_pl.evaluation.model import DualEncoderLike, evaluating
from timix_pl.evaluation.pairs import EncodedPairs, encode_pairs
from timix_pl.evaluation.results import named
from timix_pl.metrics.contrastive import binary_entropy, mixed_losses
from timix_pl.mixing.mixer import Mixer
from timix_pl.models.dual_encoder import DualEncoder

log = logging.getLogger(__name__)


@EVALUATORS.register("mutual_information")
class MutualInformation(Evaluator):
    """Estimates of the bound at a fixed number of pairs per batch, means over all whole batches, in nats.

    Clean pairs: log K - loss, with the loss averaged over both directions. Mixed images: log (K - 1) - loss, where the loss is the
    cross-entropy of an image's K captions with its soft targets; a caption drawn from these is what the image is informative about. One of
    the K belongs to the image's other part and is no independent candidate. On training pairs neither is a bound.

    Args:
        held_out, train: pairs that were not, and that were trained on; either may be None. An image's first caption is used.
        mixer: None: nothing is mixed.
        num_pairs: K.
        batch_size: pairs per forward pass on each rank, about.
        num_workers: loader processes per rank.
    Source: van den Oord et al. 2018; Poole et al. 2019, section 2.3; docs/noise.md derives the mixed one.
    """

    title = "mutual information"
    gathered: ClassVar[Mapping[str, str]] = {
        "held_out": "data.val_shards",
        "train": "the sample of data.train_shards",
        "num_pairs": "evaluation.mi_pairs",
    }
    metrics: ClassVar[Mapping[str, Metric]] = {
        "held_out": Metric(Unit.nats, higher_is_better=True, label="held-out", chance="equal scores"),
        "train": Metric(Unit.nats, higher_is_better=True, label="train", chance="equal scores"),
        "ceiling": Metric(Unit.nats, higher_is_better=True, label="ceiling"),
        "held_out_mixed": Metric(Unit.nats, higher_is_better=True, label="held out mixed", chance="equal scores"),
        "train_mixed": Metric(Unit.nats, higher_is_better=True, label="train mixed", chance="equal scores"),
        "ceiling_mixed": Metric(Unit.nats, higher_is_better=True, label="ceiling mixed"),
        "gap": Metric(Unit.nats, higher_is_better=False, label="gap"),
        "gap_mixed": Metric(Unit.nats, higher_is_better=False, label="gap mixed"),
    }

    def __init__(
        self,
        held_out: Dataset[EvaluationItem] | None,
        train: Dataset[EvaluationItem] | None,
        mixer: Mixer | None = None,
        *,
        num_pairs: int = 128,
        batch_size: int,
        num_workers: int = 0,
    ):
        self.held_out, self.train, self.mixer = held_out, train, mixer
        self.num_pairs, self.batch_size, self.num_workers = num_pairs, batch_size, num_workers

    @classmethod
    def gather(cls, run: RunToEvaluate) -> dict[str, Any]:
        """See :class:`Evaluator`."""
        if not isinstance(run.model, DualEncoder):
            raise LeftOut("a fine-tuned model compares no pairs")
        held_out, train, mixer = run.evaluation_set("val"), run.training_sample(), run.mixer()
        if held_out is None and train is None:
            raise LeftOut("data.val_shards is not set and data=stream has no fixed sample of training pairs")
        if mixer is not None and mixer.joins_captions:
            log.info("mutual_information: mixed pairs with joined captions have no bound of their own, since the captions share parts")
            mixer = None
        return {"held_out": held_out, "train": train, "mixer": mixer, "num_pairs": run.value(cls.gathered["num_pairs"])}

    def run(self, model: DualEncoderLike, device: torch.device) -> EvaluationResult:
        """The bounds, what they can reach at most, and by how much those of training pairs lie above; the same on every rank.

        Args:
            model: lies on ``device`` already.
        Raises:
            DataError: a set has fewer than ``num_pairs`` pairs, an image has no caption, or cannot be read.
        """
        clean, mixed, least_losses = {}, {}, []
        with evaluating(model):
            for set_name, dataset in (("held_out", self.held_out), ("train", self.train)):
                if dataset is None:
                    continue
                batches = [pairs for pairs in self._encoded(model, dataset, device, set_name) if len(pairs.extra) == self.num_pairs]
                clean[set_name] = math.log(self.num_pairs) - _mean([pairs.losses() for pairs in batches])
                if self.mixer is not None:
                    mixed[f"{set_name}_mixed"] = math.log(self.num_pairs - 1) - _mean([_mixed_losses(pairs) for pairs in batches])
                    least_losses.append(_mean([binary_entropy(pairs.mixed.lam) for pairs in batches if pairs.mixed]))
        metrics = clean | {"ceiling": math.log(self.num_pairs)}
        chance = dict.fromkeys(clean, 0.0) | dict.fromkeys(mixed, math.log((self.num_pairs - 1) / self.num_pairs))
        if mixed:
            metrics |= mixed | {"ceiling_mixed": math.log(self.num_pairs - 1) - min(least_losses)}
        if self.held_out is not None and self.train is not None:
            metrics["gap"] = clean["train"] - clean["held_out"]
            if mixed:
                metrics["gap_mixed"] = mixed["train_mixed"] - mixed["held_out_mixed"]
        return named(self, metrics, chance)

    def _encoded(self, model: DualEncoderLike, dataset: Dataset[EvaluationItem], device: torch.device, set_name: str) -> list[EncodedPairs]:
        return encode_pairs(
            model,
            dataset,
            device,
            num_pairs=self.num_pairs,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            mixer=self.mixer,
            what=f"`{set_name}`",
        )


def _mixed_losses(pairs: EncodedPairs) -> Tensor:
    assert pairs.mixed is not None
    features, own, partner, lam = pairs.mixed
    return mixed_losses(features, pairs.text_features, pairs.logit_scale, own, partner, lam)


def _mean(values: list[Tensor]) -> float:
    return torch.cat(values).mean().item()
