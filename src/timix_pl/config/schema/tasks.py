"""``tune.*``, ``vqa.*`` and ``captioning.*``: fine-tuning of a pre-trained model."""

from dataclasses import dataclass
from enum import StrEnum

from timix_pl.config.facts import Resume, When, option
from timix_pl.config.rules import BELOW_ONE, COUNT, NOT_NEGATIVE, Range

VqaKind = StrEnum("VqaKind", ["multiple_choice", "open", "both"])
TunedTowers = StrEnum("TunedTowers", ["frozen", "last", "all"])

NEW_DECODER = [When("captioning.decoder", None)]


@dataclass
class TuneConfig:
    """How a pre-trained model is fine-tuned (``task=vqa``, ``task=captioning``)."""

    towers: TunedTowers = option(
        TunedTowers.frozen,
        "What is trained besides the head. frozen: nothing; last: the last blocks of the towers that the head reads; all: these towers.",
    )
    last_blocks: int = option(2, "towers=last: number of blocks of each tower.", within=COUNT, used=[When("tune.towers", TunedTowers.last)])
    lr_scale: float = option(
        0.1,
        "towers=last or all: factor on optim.lr for the towers.",
        within=NOT_NEGATIVE,
        used=[When("tune.towers", TunedTowers.last, TunedTowers.all)],
    )
    block: int | None = option(
        None,
        "The head reads the patch features after this block of the image tower, counted from 1; null: the last block, or pta.block if the "
        "tower gives features only there.",
        within=COUNT,
    )
    items_per_image: int = option(
        4, "Questions (or captions) of an image per step. If it has more, each epoch uses the next ones.", within=COUNT
    )


@dataclass
class VqaConfig:
    """Visual question answering (``task=vqa``)."""

    kind: VqaKind = option(
        VqaKind.multiple_choice,
        "multiple_choice: choose among the choices of a question; open: choose among the most frequent answers; both: train for both.",
    )
    num_answers: int = option(
        3000,
        "kind=open or both: number of answers that the model can give, the most frequent ones in the training shards.",
        within=COUNT,
        used=[When("vqa.kind", VqaKind.open, VqaKind.both)],
    )
    use_image: bool = option(True, "false: answer from the text only, as a baseline.")
    dim: int = option(256, "Channels of the fusion head; a multiple of vqa.heads.", within=COUNT)
    layers: int = option(2, "Layers of the fusion head, in which question tokens attend to one another and to patches.", within=COUNT)
    heads: int = option(4, "Attention heads of the fusion head.", within=COUNT)
    dropout: float = option(0.1, "Dropout in the fusion head.", within=BELOW_ONE)


@dataclass
class CaptioningConfig:
    """The decoder of ``task=captioning``, and how it generates captions."""

    decoder: str | None = option(
        None, "Pretrained Hugging Face language model: a hub name or a local folder; null: a GPT-2 with random weights, of the sizes below."
    )
    vocab_size: int = option(
        8192,
        "decoder=null: vocabulary size. The vocabulary is CLIP's with only its first merges; 49408 is all of it.",
        within=Range(514, 49408),
        used=NEW_DECODER,
    )
    dim: int = option(256, "decoder=null: channels; a multiple of captioning.heads.", within=COUNT, used=NEW_DECODER)
    layers: int = option(3, "decoder=null: transformer blocks.", within=COUNT, used=NEW_DECODER)
    heads: int = option(4, "decoder=null: attention heads.", within=COUNT, used=NEW_DECODER)
    dropout: float = option(0.1, "decoder=null: dropout.", within=BELOW_ONE, used=NEW_DECODER)
    max_length: int = option(40, "Largest number of tokens of a caption; longer ones are cut.", within=COUNT)
    label_smoothing: float = option(0.1, "Label smoothing: share of each target that is spread over the vocabulary.", within=BELOW_ONE)
    num_beams: int = option(3, "Beams of beam search; 1 is greedy decoding.", within=COUNT, resume=Resume.free)
    length_penalty: float = option(
        1.0,
        "Beams are ranked by log probability / length ** length_penalty; higher values give longer captions.",
        within=NOT_NEGATIVE,
        resume=Resume.free,
    )
    no_repeat_ngram_size: int = option(
        3, "No sequence of this many tokens occurs twice in a generated caption; 0: no such rule.", within=NOT_NEGATIVE, resume=Resume.free
    )
