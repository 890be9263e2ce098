"""Draw pictures for the report, mixed pairs and heat maps, once after the last step."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor

from timix_pl.core.errors import TimixError
from timix_pl.core.files import atomic_path
from timix_pl.core.types import PairBatch
from timix_pl.data.sets.evaluation_set import EvaluationSet
from timix_pl.data.sets.patch_labels import boxes_by_phrase
from timix_pl.metrics.grounding import pointing_hits
from timix_pl.training.callbacks.mixing import MixingCallback
from timix_pl.training.module import MixNow, TrainModule
from timix_pl.training.sharding import whole_weights

log = logging.getLogger(__name__)


class PicturesCallback(Callback):
    """Writes ``mixed.json``, ``heat_maps.json`` and their PNGs.

    Args:
        folder: for the files.
        mixing: its mixer mixes pairs of the last batch; None: no mixed pairs.
        grounding: images with boxes for heat maps; None: no heat maps.
        num_mixed, num_heat_maps: largest numbers of pictures.
        phrase_template: template of phrases, as in training.
    """

    def __init__(
        self,
        folder: Path,
        *,
        mixing: MixingCallback | None,
        grounding: EvaluationSet | None,
        num_mixed: int = 8,
        num_heat_maps: int = 8,
        phrase_template: str = "{}",
    ):
        self.folder, self.mixing, self.grounding = folder, mixing, grounding
        self.num_mixed, self.num_heat_maps, self.phrase_template = num_mixed, num_heat_maps, phrase_template

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: PairBatch, batch_idx: int) -> None:
        """Draw after the last step, on rank 0."""
        assert isinstance(pl_module, TrainModule)
        if pl_module.global_step != trainer.max_steps:
            return
        with whole_weights(pl_module.model):
            if trainer.is_global_zero:
                self._draw(pl_module, batch)

    def _draw(self, pl_module: TrainModule, pairs: PairBatch) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        pl_module.model.eval()
        try:
            if self.mixing is not None and self.num_mixed:
                self._write("mixed", self.mixed_pairs(pl_module, pairs, self.mixing))
            if self.grounding is not None and self.num_heat_maps and pl_module.model.pta is not None:
                self._write("heat_maps", self.heat_maps(pl_module, self.grounding))
        except (TimixError, OSError) as error:
            log.warning("the report will lack pictures: %s", error)
        pl_module.model.train()

    def mixed_pairs(self, module: TrainModule, pairs: PairBatch, mixing: MixingCallback) -> list[dict[str, Any]]:
        """Mixed pairs of a batch with their captions, windows and lam."""
        module.mixing = MixNow(mixing.mixer, "extra", mixing.ratio, 1.0, mixing.group_size)
        step = module.mix_step(pairs)
        if step is None:
            return []
        plan = module.model(pairs.images, pairs.tokens, mix=step).plan
        images = pairs.images.float()
        mixed = step.apply(images, plan)
        entries = []
        for number in range(min(self.num_mixed, len(plan.rows))):
            row, partner = int(plan.rows[number]), int(plan.partners[number])
            names: dict[str, Any] = {part: f"mixed-{number}-{part}.png" for part in ("clean", "source", "mixed")}
            for part, image in zip(names, (images[row], images[partner], mixed[number]), strict=True):
                _save(image, self.folder / names[part])
            windows = plan.windows
            entries.append(
                names
                | {
                    "caption": pairs.captions[row],
                    "partner_caption": pairs.captions[partner],
                    "lam": float(plan.lam[number]),
                    "target_xyxy_norm": _box(windows.target[number], windows.side, module.model.patch_grid) if windows else None,
                    "source_xyxy_norm": _box(windows.source[number], windows.side, module.model.patch_grid) if windows else None,
                    "step": module.global_step,
                }
            )
        return entries

    def heat_maps(self, module: TrainModule, grounding: EvaluationSet) -> list[dict[str, Any]]:
        """Heat maps over evaluation images that are evenly spread over the set, each for the image's first phrase."""
        entries: list[dict[str, Any]] = []
        for number in np.linspace(0, len(grounding) - 1, min(4 * self.num_heat_maps, len(grounding)), dtype=int):
            if len(entries) == self.num_heat_maps:
                break
            item = grounding[int(number)]
            if not item.regions:
                continue
            region = item.regions[0]
            tokens = module.model.tokenizer([self.phrase_template.replace("{}", region.phrase)]).to(module.device)
            scores = module.model.patch_scores(item.image[None].to(module.device), tokens)[0].float()
            name = f"heat-{len(entries)}.png"
            _save(item.image, self.folder / name)
            boxes = boxes_by_phrase(item.regions)[region.phrase]
            hit = pointing_hits(scores[None].cpu(), boxes, torch.zeros(len(boxes), dtype=torch.long))
            entries.append(
                {
                    "image": name,
                    "scores": scores.sigmoid().tolist(),
                    "phrase": region.phrase,
                    "box_xyxy_norm": list(region.bbox_xyxy_norm),
                    "hit": bool(hit),
                    "step": module.global_step,
                }
            )
        return entries

    def _write(self, name: str, entries: list[dict[str, Any]]) -> None:
        with atomic_path(self.folder / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(entries, indent=1))


def _save(image: Tensor, path: Path) -> None:
    Image.fromarray(image.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()).save(path)


def _box(corner: Tensor, side: int, grid: tuple[int, int]) -> list[float]:
    row, column = corner.tolist()
    return [column / grid[1], row / grid[0], (column + side) / grid[1], (row + side) / grid[0]]
