"""``model.*`` and ``pta.*``: the two towers and the patch-text alignment head."""

from dataclasses import dataclass
from enum import StrEnum

from timix_pl.config.facts import AnyOf, Unless, When, option
from timix_pl.config.rules import BELOW_ONE, COUNT, NOT_NEGATIVE, POSITIVE, SHARE, Range

PtaTeacher = StrEnum("PtaTeacher", ["boxes", "mixing", "both"])
PtaGrad = StrEnum("PtaGrad", ["full", "trunk", "head"])

TAUGHT = [
    When("task", "pretrain"),
    When("pta.enabled", True),
    AnyOf(Unless("mixing.ratio", 0.0), When("mixing.kind", "none")),  # a ratio of 0 is plain CLIP, without the head
]
"""A run that trains the PTA head; a fine-tuning run only keeps it."""

BY_BOXES = [*TAUGHT, When("pta.teacher", PtaTeacher.boxes, PtaTeacher.both)]
BY_MIXING = [*TAUGHT, When("pta.teacher", PtaTeacher.mixing, PtaTeacher.both)]


@dataclass
class ModelConfig:
    """The towers."""

    architecture: str = option("ViT-B-32", "Name of an open_clip architecture, or timix-tiny or timix-small.", on_card=True)
    pretrained: str | None = option(
        None, "Weights to start from: an open_clip pretrained tag, or the path of a weights file; null: random weights.", on_card=True
    )
    text_model: str | None = option(
        None, "Hugging Face text tower to use instead of the architecture's: a hub name or a local folder.", on_card=True
    )
    text_pretrained: bool = option(
        True, "Load the weights of the Hugging Face text tower; false: use only its configuration.", used=[Unless("model.text_model", None)]
    )
    image_size_px: int | None = option(
        None, "Side of the input images, in pixels; null: the architecture's.", within=COUNT, in_evaluation=True
    )
    context_length: int | None = option(None, "Tokens per caption; null: the architecture's.", within=Range(2), in_evaluation=True)
    init_logit_scale: float | None = option(
        None, "Inverse temperature at the start; null: 1 / 0.07 for info_nce, 10 for siglip.", within=POSITIVE
    )
    max_logit_scale: float = option(100.0, "Upper bound of the inverse temperature during training.", within=POSITIVE)
    patch_dropout: float = option(
        0.0,
        "Share of the patches that are dropped from clean and mixed images in training (vision transformers only).",
        within=BELOW_ONE,
        used=[When("task", "pretrain")],
        of_model=False,
    )


@dataclass
class PtaConfig:
    """The patch-text alignment head and how it is trained."""

    enabled: bool = option(True, "Build the PTA head; mixing=timix needs it.", of_model=True, on_card=True)
    block: int = option(
        6,
        "The head reads the patch features after this block of the image tower, counted from 1.",
        within=COUNT,
        of_model=True,
        on_card=True,
    )
    hidden_dim: int | None = option(
        None,
        "Channels inside the head; null: the image tower's width.",
        within=Range(2),
        used=[When("pta.enabled", True)],
        of_model=True,
    )
    teacher: PtaTeacher | None = option(
        None,
        "What teaches the head. boxes: region images with boxes; mixing: mixed images, in which the caption of each patch is known; both. "
        "null: boxes if there are region shards, else mixing.",
        used=TAUGHT,
        on_card=True,
    )
    mosaic_frac: float = option(
        0.5,
        "teacher=mixing or both: share of the mixed images that are mosaics of random blocks, instead of having a window.",
        within=SHARE,
        used=BY_MIXING,
    )
    weight: float = option(1.0, "Weight of the PTA loss in the total loss.", within=NOT_NEGATIVE, used=TAUGHT)
    min_cover: float = option(
        0.0,
        "Share of a patch's area that a box must cover to make the patch positive; 0: any overlap.",
        within=SHARE,
        used=[When("pta.enabled", True)],
        of_model=True,
        in_evaluation=True,
    )
    grad: PtaGrad | None = option(
        None,
        "Where gradients of the PTA loss go. full: the head and both towers; trunk: the head and the image tower up to pta.block; "
        "head: only the head. null: trunk with teacher=mixing, else full.",
        used=TAUGHT,
    )
    negative_frac: float = option(
        0.0, "Share of another image's phrases added as negatives (0 on every patch).", within=SHARE, used=BY_BOXES
    )
    caption_positive: bool = option(
        False, "Also train with whole captions, positive on every patch (as the paper's code does).", used=BY_BOXES
    )
    first_samples: int = option(
        0,
        "Pairs consumed before the head chooses windows, so that it has learnt something first. Before, nothing is mixed "
        "(teacher=boxes), or all mixed images are mosaics.",
        within=NOT_NEGATIVE,
        used=[When("task", "pretrain"), Unless("mixing.kind", "none"), Unless("mixing.ratio", 0.0)],
    )
    first_frac: float = option(
        0.0,
        "The same as a share of the run. If both are set, the later one counts.",
        within=BELOW_ONE,
        used=[When("task", "pretrain"), Unless("mixing.kind", "none"), Unless("mixing.ratio", 0.0)],
    )
    every_n_steps: int = option(1, "Steps between region batches.", within=COUNT, used=BY_BOXES)
    batch_size: int = option(64, "Region images per region batch, over all ranks.", within=COUNT, used=BY_BOXES)
