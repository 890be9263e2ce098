"""``task=pretrain``: contrastive pre-training of both towers on image-text pairs."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from timix_pl.building.checkpoints import Facts
from timix_pl.building.data import batch_options, build_stream, remote_access
from timix_pl.building.evaluators import grounding_set
from timix_pl.building.mixing import build_mixing
from timix_pl.building.objective import build_objective
from timix_pl.building.task import Task
from timix_pl.config.schema import DataKind
from timix_pl.config.validate import boxes_teach, mixing_teaches
from timix_pl.core.choices import TASKS
from timix_pl.data.sets.pair_set import PairSet
from timix_pl.data.sets.resampled import ResampledShards
from timix_pl.data.sets.sample_stream import SampleStream
from timix_pl.data.sets.step_set import StepSet
from timix_pl.mixing.groups import num_mixed_rows
from timix_pl.mixing.mixer import Mixer
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.training.callbacks.pictures import PicturesCallback
from timix_pl.training.objective import Objective
from timix_pl.training.step_cost import PairWorkload, Workload


@TASKS.register("pretrain")
class Pretraining(Task):
    """Trains both towers, the PTA head and further loss terms."""

    sample = "pair"

    def samples(self) -> SampleStream | ResampledShards:
        """See :class:`Task`."""
        cfg, data = self.cfg, self.cfg.data
        if data.kind == DataKind.stream:
            access = remote_access(cfg)
            return ResampledShards(data.train_shards, key="data.train_shards", seed=cfg.seed, access=access, allow_pipe=data.allow_pipe)
        return build_stream(cfg, "train")

    def regions(self) -> SampleStream | None:
        """See :class:`Task`."""
        return build_stream(self.cfg, "region") if boxes_teach(self.cfg) else None

    def model(self, encoder: DualEncoder, facts: Facts | None) -> DualEncoder:
        """The encoder itself."""
        return encoder

    def objective(self, model: DualEncoder) -> Objective:
        """See :class:`Task`."""
        return build_objective(self.cfg, model)

    def make_set(self, model: DualEncoder, facts: Facts, samples: Any, regions: SampleStream | None) -> Callable[..., StepSet]:
        """See :class:`Task`."""
        cfg, pta = self.cfg, self.cfg.pta
        return partial(
            PairSet,
            samples if isinstance(samples, SampleStream) else None,
            regions,
            model.tokenizer,
            region_batch_size=pta.batch_size,
            region_every_n_steps=pta.every_n_steps,
            max_phrases=cfg.data.max_phrases,
            phrase_template=cfg.data.phrase_template,
            min_cover=pta.min_cover,
            negative_frac=pta.negative_frac,
            caption_positive=pta.caption_positive,
            **batch_options(cfg, model),
        )

    def workload(self, model: DualEncoder, mixer: Mixer | None) -> Workload:
        """See :class:`Task`."""
        return PairWorkload(model, mixer, self.cfg.mixing.compute, teaches=mixing_teaches(self.cfg))

    def most_counts(self, num_ranks: int) -> dict[str, int]:
        """The counts of a step with a region batch and mixing at full strength."""
        cfg = self.cfg
        num_pairs = math.ceil(cfg.data.global_batch_size / num_ranks)
        num_regions = math.ceil(cfg.pta.batch_size / num_ranks) if boxes_teach(cfg) else 0
        return {
            "pair": num_pairs,
            "mixed_image": num_pairs * num_mixed_rows(cfg.mixing.group_size, cfg.mixing.ratio) // cfg.mixing.group_size,
            "region_image": num_regions,
            "phrase": num_regions * cfg.data.max_phrases,
        }

    def mean_counts(self) -> dict[str, float]:
        """See :class:`Task`."""
        most, every_n_steps = self.most_counts(1), self.cfg.pta.every_n_steps
        return most | {part: most[part] / every_n_steps for part in ("region_image", "phrase")}

    def callbacks(self, model: DualEncoder, run_dir: Path) -> list[Callback]:
        """The callback that draws pictures for the report."""
        cfg = self.cfg
        pictures = PicturesCallback(
            run_dir / "pictures",
            mixing=build_mixing(cfg, model.patch_grid),
            grounding=grounding_set(cfg, model),
            num_mixed=cfg.pictures.num_mixed,
            num_heat_maps=cfg.pictures.num_heat_maps,
            phrase_template=cfg.data.phrase_template,
        )
        return [pictures]
