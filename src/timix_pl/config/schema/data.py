"""``data.*``: the training and evaluation data, and how it is read."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from timix_pl.config.facts import Resume, Unless, When, option, section
from timix_pl.config.rules import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, ColorJitter, LowHigh, Range, Shards, Template

DataKind = StrEnum("DataKind", ["scenes", "shards", "stream"])
Prepare = StrEnum("Prepare", ["flickr8k", "visual7w"])
Remote = StrEnum("Remote", ["cache", "range"])

NO_JITTER = [0.0, 0.0, 0.0, 0.0]


@dataclass
class AugmentationConfig:
    """Random augmentation of training images."""

    scale: list[float] = option([0.9, 1.0], "Random resized crop: smallest and largest share of the image's area.", within=LowHigh(1.0))
    ratio: list[float] = option([0.75, 1.3333], "Random resized crop: smallest and largest aspect ratio.", within=LowHigh())
    flip: bool = option(False, "Flip half of the images left to right. Off by default, because captions may say 'left'.")
    color_jitter: list[float] = option(
        NO_JITTER,
        "Strengths of random colour changes: brightness, contrast, saturation (factor 1 +- strength), hue (share of the colour circle).",
        within=ColorJitter(),
    )
    color_jitter_prob: float = option(
        0.8,
        "Share of the images whose colours color_jitter changes.",
        within=SHARE,
        used=[Unless("data.augmentation.color_jitter", NO_JITTER)],
    )
    gray_prob: float = option(0.0, "Share of the images turned to grey. Off by default, because captions may name colours.", within=SHARE)


@dataclass
class ScenesConfig:
    """The embedded data set (``data=scenes``)."""

    num_train: int = option(20000, "Training pairs.", within=COUNT)
    num_regions: int = option(4000, "Images with boxes, to train PTA.", within=COUNT)
    num_val: int = option(512, "Evaluation pairs; all captions match their images.", within=COUNT)
    num_zero_shot: int = option(960, "Images of a single object, for zero-shot classification.", within=COUNT)
    image_size_px: int = option(64, "Side of the generated square images, in pixels.", within=Range(32))
    misaligned_frac: float = option(0.5, "Share of the training captions that omit objects or name absent ones.", within=SHARE)
    seed: int = option(0, "Seed of the generator, independent of the seed of the run.", within=NOT_NEGATIVE)


@dataclass
class DataConfig:
    """The data."""

    kind: DataKind = option(
        DataKind.shards,
        "scenes: the embedded data set; shards: indexed tar shards; stream: tar shards that cannot be indexed.",
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
        "Pairs for evaluation, and boxes for grounding; same format as train_shards.",
        within=Shards(),
        resume=Resume.free,
        in_evaluation=True,
        on_card=True,
        frequent=True,
    )
    region_shards: Any = option(
        None,
        "Images with boxes and phrases, to train PTA; same format as train_shards.",
        within=Shards(),
        resume=Resume.free,
        used=[When("task", "pretrain"), Unless("pta.teacher", "mixing")],
        on_card=True,
        frequent=True,
    )
    zero_shot_shards: Any = option(
        None,
        "Labelled images for zero-shot classification and to test linear_probe and knn: shards, or a folder with a sub-folder per class.",
        within=Shards(labelled=True),
        resume=Resume.free,
        in_evaluation=True,
    )
    probe_train_shards: Any = option(
        None,
        "Labelled images that linear_probe and knn learn from; same format as zero_shot_shards.",
        within=Shards(labelled=True),
        resume=Resume.free,
        in_evaluation=True,
    )
    grounding_shards: Any = option(
        None,
        "Images with boxes for the grounding evaluation; null: val_shards, if they have boxes.",
        within=Shards(),
        resume=Resume.free,
        in_evaluation=True,
    )
    noise_shards: Any = option(
        None,
        "Held-out pairs that say how well image and caption match, for evaluation.tasks=[noise].",
        within=Shards(),
        resume=Resume.free,
        in_evaluation=True,
    )
    prepare: Prepare | None = option(
        None,
        "First convert the published files of this data set, in real_data_dir, to shards in cache_dir; null: convert nothing.",
        in_evaluation=True,
    )
    cache_dir: str = option(
        "data",
        "Folder for data that timix-pl writes: generated scenes, prepared shards, and by default remote shards.",
        resume=Resume.free,
        in_evaluation=True,
    )
    remote: Remote = option(
        Remote.cache,
        "How shards at URLs are read. cache: download whole shards to shard_cache_dir; range: fetch each sample with a range request.",
        resume=Resume.free,
        in_evaluation=True,
    )
    shard_cache_dir: str | None = option(
        None, "Local folder for remote shards and their indexes; null: CACHE_DIR/shards.", resume=Resume.free, in_evaluation=True
    )
    shard_cache_gb: float = option(
        50.0,
        "Limit on the remote shards kept in shard_cache_dir, in GB (1e9 bytes). The least recently opened ones are removed first.",
        within=POSITIVE,
        resume=Resume.free,
        in_evaluation=True,
    )
    allow_pipe: bool = option(
        False,
        "data=stream: allow pipe:COMMAND in train_shards, which runs COMMAND in a shell.",
        resume=Resume.free,
    )
    global_batch_size: int = option(
        256,
        "Pairs per optimizer step, over all ranks (task=vqa or captioning: images, 64 by default). A multiple of the number of ranks.",
        within=Range(2),
        on_card=True,
        frequent=True,
    )
    num_workers: int = option(
        2,
        "Loader processes per rank; 0: load in the training process.",
        within=NOT_NEGATIVE,
        resume=Resume.free,
        in_evaluation=True,
    )
    prefetch_batches: int = option(4, "Batches that each loader process prepares ahead.", within=COUNT, resume=Resume.free)
    shuffle_window_shards: int = option(8, "Shards are shuffled, then samples within windows of this many shards.", within=COUNT)
    max_bad_frac: float = option(
        0.01,
        "Stop the run when more than this share of the samples read cannot be used; fewer than 1,000 samples count as 1,000.",
        within=SHARE,
        resume=Resume.free,
    )
    allow_changed: bool = option(
        False, "Resume although the training shards differ from those that the run started with.", resume=Resume.free
    )
    epoch_samples: int | None = option(
        None,
        "Samples that trainer.max_epochs counts as one epoch; null: all training pairs. It does not change the order of the samples.",
        within=COUNT,
        used=[Unless("trainer.max_epochs", None)],
        resume=Resume.free,
    )
    audit: bool = option(
        False,
        "Write audit-RANK.jsonl: one line per training sample, with its position, shard and key.",
        resume=Resume.free,
    )
    max_image_px: int = option(100_000_000, "Do not decode images with more pixels than this.", within=COUNT, in_evaluation=True)
    max_image_mb: float = option(
        100.0,
        "Do not read images, texts or JSON files larger than this, in MB. No effect with data=stream, which reads whole shards.",
        within=POSITIVE,
        in_evaluation=True,
    )
    max_phrases: int = option(
        8,
        "Largest number of phrases per region image and step; if an image has more, they are drawn at random.",
        within=COUNT,
        used=[When("task", "pretrain"), When("pta.enabled", True), When("pta.teacher", "boxes", "both")],
    )
    phrase_template: str = option(
        "{}",
        "Template that turns a phrase into a caption, e.g. 'a photo of a {}'.",
        within=Template(),
        used=[When("pta.enabled", True)],
        in_evaluation=True,
    )
    augmentation: AugmentationConfig = section(
        AugmentationConfig, "Random crops, flips and colour changes of training images; boxes move with crops and flips."
    )
    scenes: ScenesConfig = section(ScenesConfig, "The embedded data set.", used=[When("data.kind", DataKind.scenes)], in_evaluation=True)
