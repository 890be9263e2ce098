"""``data.*``: what is trained and evaluated on, and how it is read."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from timix_pl.config.option import Resume, Unless, When, option, section
from timix_pl.config.rules import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, ColorJitter, LowHigh, Range, Shards, Template

DataKind = StrEnum("DataKind", ["scenes", "shards", "stream"])
Prepare = StrEnum("Prepare", ["flickr8k", "visual7w"])
Remote = StrEnum("Remote", ["cache", "range"])

NO_JITTER = [0.0, 0.0, 0.0, 0.0]


@dataclass
class AugmentationConfig:
    """Random changes of training images."""

    scale: list[float] = option([0.9, 1.0], "Random resized crop: smallest and largest share of the image's area.", within=LowHigh(1.0))
    ratio: list[float] = option([0.75, 1.3333], "Random resized crop: smallest and largest aspect ratio.", within=LowHigh())
    flip: bool = option(False, "Flip half of the images left to right. Off by default: captions may say 'left'.")
    color_jitter: list[float] = option(
        NO_JITTER,
        "Strengths of random changes: brightness, contrast, saturation (1 +- strength), hue (share of the circle).",
        within=ColorJitter(),
    )
    color_jitter_prob: float = option(
        0.8,
        "Share of the images whose colours color_jitter changes.",
        within=SHARE,
        used=[Unless("data.augmentation.color_jitter", NO_JITTER)],
    )
    gray_prob: float = option(0.0, "Share of the images that lose their colours. Captions may name colours.", within=SHARE)


@dataclass
class ScenesConfig:
    """The embedded data set (``data=scenes``)."""

    num_train: int = option(20000, "Training pairs.", within=COUNT)
    num_regions: int = option(4000, "Images with boxes, which teach PTA.", within=COUNT)
    num_val: int = option(512, "Clean evaluation scenes.", within=COUNT)
    num_zero_shot: int = option(960, "Images of one object each, for zero-shot classification.", within=COUNT)
    image_size_px: int = option(64, "Side of the generated square images, in pixels.", within=Range(32))
    misaligned_frac: float = option(0.5, "Share of the training captions that leave objects out or name absent ones.", within=SHARE)
    seed: int = option(0, "Seed of the generator; it is not the seed of the run.", within=NOT_NEGATIVE)


@dataclass
class DataConfig:
    """The data."""

    kind: DataKind = option(
        DataKind.shards,
        "scenes: the embedded data set; shards: indexed tar shards; stream: tars that cannot be indexed.",
        in_evaluation=True,
    )
    train_shards: Any = option(
        None,
        "Image-text pairs: a folder, a pattern (quote it), a URL, or a list; items may be {path: ..., weight: ...}.",
        within=Shards(),
        resume=Resume.free,
        in_evaluation=True,
        on_card=True,
        frequent=True,
    )
    val_shards: Any = option(
        None,
        "Pairs for evaluation (and boxes, for grounding), given like train_shards.",
        within=Shards(),
        resume=Resume.free,
        in_evaluation=True,
        on_card=True,
        frequent=True,
    )
    region_shards: Any = option(
        None,
        "Images with boxes and phrases, which teach PTA, given like train_shards.",
        within=Shards(),
        resume=Resume.free,
        used=[When("task", "pretrain")],
        on_card=True,
        frequent=True,
    )
    zero_shot_shards: Any = option(
        None,
        "Labelled images, for zero-shot classification and to test probes: shards, or a folder whose sub-folders are the classes.",
        within=Shards(labelled=True),
        resume=Resume.free,
        in_evaluation=True,
    )
    probe_train_shards: Any = option(
        None,
        "Labelled images that linear_probe and knn learn from, given like zero_shot_shards.",
        within=Shards(labelled=True),
        resume=Resume.free,
        in_evaluation=True,
    )
    grounding_shards: Any = option(
        None,
        "Images with boxes to judge PTA; null: val_shards, if it has boxes.",
        within=Shards(),
        resume=Resume.free,
        in_evaluation=True,
    )
    noise_shards: Any = option(
        None,
        "Held-out pairs of which it is known how well they match, for evaluation.tasks=[noise].",
        within=Shards(),
        resume=Resume.free,
        in_evaluation=True,
    )
    prepare: Prepare | None = option(
        None, "flickr8k or visual7w: first turn its published files in real_data_dir into shards in cache_dir.", in_evaluation=True
    )
    cache_dir: str = option(
        "data",
        "Folder for data that timix-pl makes: the generated scenes, the prepared shards.",
        resume=Resume.free,
        in_evaluation=True,
    )
    remote: Remote = option(
        Remote.cache,
        "Shards at URLs: fetched whole into shard_cache_dir (cache), or each sample in a range request (range).",
        resume=Resume.free,
        in_evaluation=True,
    )
    shard_cache_dir: str | None = option(
        None, "Local folder for remote shards and their indexes; null: shards inside cache_dir.", resume=Resume.free, in_evaluation=True
    )
    shard_cache_gb: float = option(
        50.0,
        "Bound on the remote shards kept there, in GB (1e9 bytes); the least recently opened ones are removed first.",
        within=POSITIVE,
        resume=Resume.free,
        in_evaluation=True,
    )
    allow_pipe: bool = option(
        False,
        "data=stream: take pipe:COMMAND for shards, which runs COMMAND in a shell.",
        resume=Resume.free,
    )
    global_batch_size: int = option(
        256,
        "Pairs (task=vqa, captioning: images, 64 by default) per optimizer step over all ranks; divisible by the number of ranks.",
        within=Range(2),
        on_card=True,
        frequent=True,
    )
    num_workers: int = option(
        2,
        "Loader processes per rank; 0 loads in the training process.",
        within=NOT_NEGATIVE,
        resume=Resume.free,
        in_evaluation=True,
    )
    prefetch_batches: int = option(4, "Batches prepared ahead by each worker.", within=COUNT, resume=Resume.free)
    shuffle_window_shards: int = option(8, "Samples are shuffled inside windows of this many (shuffled) shards.", within=COUNT)
    max_bad_frac: float = option(
        0.01,
        "Stop the run when more than this share of the samples read (at least of 1,000) is unusable.",
        within=SHARE,
        resume=Resume.free,
    )
    allow_changed: bool = option(
        False, "Go on although the training shards differ from those that the run started with.", resume=Resume.free
    )
    epoch_samples: int | None = option(
        None,
        "Samples that trainer.max_epochs counts as one epoch; null: all training pairs. The order does not depend on it.",
        within=COUNT,
        used=[Unless("trainer.max_epochs", None)],
        resume=Resume.free,
    )
    audit: bool = option(
        False,
        "Write audit-RANK.jsonl: a line for each sample trained on, with its position, shard and key.",
        resume=Resume.free,
    )
    max_image_px: int = option(100_000_000, "Refuse to decode images of more pixels than this.", within=COUNT, in_evaluation=True)
    max_image_mb: float = option(
        100.0,
        "Refuse to read images, texts or JSON of more megabytes than this (not with data=stream, which reads shards whole).",
        within=POSITIVE,
        in_evaluation=True,
    )
    max_phrases: int = option(
        8,
        "Phrases used of each region image per step; if there are more, they are drawn at random.",
        within=COUNT,
        used=[When("task", "pretrain"), When("pta.enabled", True)],
    )
    phrase_template: str = option(
        "{}",
        "How a phrase becomes a caption, e.g. 'a photo of a {}'.",
        within=Template(),
        used=[When("pta.enabled", True)],
        in_evaluation=True,
    )
    augmentation: AugmentationConfig = section(AugmentationConfig, "Training crops, flips (boxes move along) and colours.")
    scenes: ScenesConfig = section(ScenesConfig, "The embedded data set.", used=[When("data.kind", DataKind.scenes)], in_evaluation=True)
