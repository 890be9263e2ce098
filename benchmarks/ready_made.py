"""Whole training steps on a batch that is there already: open_clip_train's loop and ours, timed in the same way."""

import logging
import time
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
from lightning.pytorch import Callback, Trainer
from open_clip_train.params import parse_args
from open_clip_train.scheduler import cosine_lr
from open_clip_train.train import train_one_epoch

from timix_pl.core.types import PairBatch, RegionBatch
from timix_pl.models.dual_encoder import DualEncoder
from timix_pl.optim.settings import OptimSettings
from timix_pl.training.module import TrainModule
from timix_pl.training.objective import Objective
from timix_pl.training.signals import silence_lightning

PHRASES_PER_IMAGE = 3
CAPTION = "a small red ring left of a striped blue square"
PRECISIONS = {"fp32": "32-true", "amp_bf16": "bf16-mixed"}
"""open_clip's names, and Lightning's."""


class TimedBatches:
    """Yields one batch again and again, as a loader would. ``step_s``: mean seconds of a step after the warm-up.

    A step is what a loop does between two batches that it takes; the last batch only marks the end.
    """

    def __init__(self, batch: Any, *, num_steps: int, warm_up: int, device: str = "cpu"):
        self.batch, self.num_steps, self.warm_up, self.device = batch, num_steps, warm_up, device
        self.num_batches = warm_up + num_steps + 1
        self.num_samples, self.step_s = self.num_batches, 0.0  # open_clip_train prints the share of the samples that is done

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Any]:
        for number in range(self.num_batches):
            if number == self.warm_up:
                if self.device == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                start_s = self._now_s()
            if number == self.num_batches - 1:
                self.step_s = (self._now_s() - start_s) / self.num_steps
            yield self.batch

    def _now_s(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def random_images(count: int, size_px: tuple[int, int], device: str) -> torch.Tensor:
    """Bytes on the CPU; for a GPU in pinned memory, from where loaders hand them over."""
    images = torch.randint(0, 256, (count, 3, *size_px), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return images.pin_memory() if device == "cuda" else images


def random_regions(model: DualEncoder, num_images: int, device: str) -> RegionBatch:
    """Region images with phrases and random patch labels."""
    num_phrases = num_images * PHRASES_PER_IMAGE
    labels = torch.randint(0, 2, (num_phrases, model.patch_grid[0] * model.patch_grid[1])).float()
    image_index = torch.arange(num_phrases) // PHRASES_PER_IMAGE
    phrases = model.tokenizer([CAPTION] * num_phrases)
    images = random_images(num_images, model.image_size_px, device)
    return RegionBatch(images=images, tokens=phrases, image_index=image_index, patch_labels=labels, keys=[""] * num_images)


def open_clip_step_s(
    architecture: str, batch_size: int, *, num_steps: int, warm_up: int, device: str = "cpu", precision: str = "fp32", fused: bool = False
) -> float:
    """Seconds of a step of ``open_clip_train``, with the settings, model and optimizer of its ``main`` and images as floats.

    Args:
        precision: ``fp32`` or ``amp_bf16``.
        fused: a fused AdamW, which ``main`` does not ask for.
    """
    words = {"model": architecture, "batch-size": batch_size, "precision": precision, "device": device, "warmup": 1}
    args = parse_args([word for key, value in words.items() for word in (f"--{key}", str(value))])
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.benchmark = True
    vars(args).update(distill=False, rank=0, local_rank=0, world_size=1, wandb=False)
    torch.manual_seed(0)
    model = open_clip.create_model(architecture, precision=precision, device=device, output_dict=True)
    named = list(model.named_parameters())
    gains = {name for name, p in named if p.ndim < 2 or any(part in name for part in ("bn", "ln", "bias", "logit_scale"))}
    groups = [
        {"params": [p for name, p in named if name in gains], "weight_decay": 0.0},
        {"params": [p for name, p in named if name not in gains], "weight_decay": args.wd},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(args.beta1, args.beta2), eps=args.eps, fused=fused or None)
    size = model.visual.image_size
    images = random_images(batch_size, size if isinstance(size, tuple) else (size, size), device).float().div_(127.5).sub_(1)
    tokens = open_clip.get_tokenizer(architecture)([CAPTION] * batch_size)
    batch = tuple(x.pin_memory() for x in (images, tokens)) if device == "cuda" else (images, tokens)
    batches = TimedBatches(batch, num_steps=num_steps, warm_up=warm_up, device=device)
    data = {"train": SimpleNamespace(dataloader=batches, set_epoch=lambda epoch: None)}
    schedule = cosine_lr(optimizer, args.lr, args.warmup, len(batches))
    train_one_epoch(model, data, open_clip.create_loss(args), 0, optimizer, None, schedule, None, args)
    return batches.step_s


def step_s(
    model: DualEncoder,
    objective: Objective,
    batch_size: int,
    *,
    num_steps: int,
    warm_up: int,
    device: str = "cpu",
    precision: str = "fp32",
    num_regions: int = 0,
    callbacks: tuple[Callback, ...] = (),
    micro_batch_size: int | None = None,
) -> float:
    """Seconds of a step of :class:`TrainModule` under Lightning's Trainer, with images as bytes and open_clip's hyper-parameters.

    Args:
        num_regions: images of a region batch in each step, with :data:`PHRASES_PER_IMAGE` phrases each.
    """
    captions = [CAPTION] * batch_size
    batch = PairBatch(
        images=random_images(batch_size, model.image_size_px, device),
        tokens=model.tokenizer(captions),
        captions=captions,
        keys=[""] * batch_size,
        first=0,
        regions=random_regions(model, num_regions, device) if num_regions else None,
    )
    batches = TimedBatches(batch, num_steps=num_steps, warm_up=warm_up, device=device)
    module = TrainModule(
        model,
        objective,
        OptimSettings(clip_grad_norm=None),
        global_batch_size=batch_size,
        planned_samples=batch_size * len(batches),
        seed=0,
        log_every_n_steps=100,
        micro_batch_size=micro_batch_size,
    )
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    trainer = Trainer(
        accelerator="gpu" if device == "cuda" else "cpu",
        devices=1,
        precision=PRECISIONS[precision],  # type: ignore[arg-type]
        max_epochs=1,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    silence_lightning(trainer)
    trainer.fit(module, batches)
    return batches.step_s
