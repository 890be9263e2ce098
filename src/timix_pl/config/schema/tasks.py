"""``tune.*``, ``vqa.*`` and ``captioning.*``: tasks that are learnt on a pre-trained model."""

from dataclasses import dataclass
from enum import StrEnum

from timix_pl.config.option import Resume, When, option
from timix_pl.config.rules import BELOW_ONE, COUNT, NOT_NEGATIVE, Range

VqaKind = StrEnum("VqaKind", ["multiple_choice", "open", "both"])
TunedTowers = StrEnum("TunedTowers", ["frozen", "last", "all"])

NEW_DECODER = [When("captioning.decoder", None)]


@dataclass
class TuneConfig:
    """How a task is learnt (``task=vqa``, ``task=captioning``)."""

    towers: TunedTowers = option(
        TunedTowers.frozen,
        "frozen: only the head learns; last: also the last blocks of the towers that it reads; all: all of these towers.",
    )
    last_blocks: int = option(2, "towers=last: so many blocks of each tower.", within=COUNT, used=[When("tune.towers", TunedTowers.last)])
    lr_scale: float = option(
        0.1,
        "towers=last, all: the towers' learning rate, as a share of optim.lr, which is the head's.",
        within=NOT_NEGATIVE,
        used=[When("tune.towers", TunedTowers.last, TunedTowers.all)],
    )
    block: int | None = option(
        None,
        "Patch features are taken after this block of the image tower, counted from 1; null: the last (some towers: pta.block).",
        within=COUNT,
    )
    items_per_image: int = option(
        4, "Questions, or captions, used of an image in a step; of more, the next ones in each epoch.", within=COUNT
    )


@dataclass
class VqaConfig:
    """Visual question answering (``task=vqa``)."""

    kind: VqaKind = option(
        VqaKind.multiple_choice,
        "multiple_choice: which of a question's choices is right; open: one of the most frequent answers; or both.",
    )
    num_answers: int = option(
        3000,
        "kind=open, both: answers that the model knows, the most frequent ones in the training shards.",
        within=COUNT,
        used=[When("vqa.kind", VqaKind.open, VqaKind.both)],
    )
    use_image: bool = option(True, "false: a text-only answerer, to see how far one comes without looking.")
    dim: int = option(256, "Channels inside the fusion; a multiple of vqa.heads.", within=COUNT)
    layers: int = option(2, "Layers of the fusion, in which question tokens attend to one another and to patches.", within=COUNT)
    heads: int = option(4, "Attention heads of the fusion.", within=COUNT)
    dropout: float = option(0.1, "Dropout inside the fusion.", within=BELOW_ONE)


@dataclass
class CaptioningConfig:
    """The decoder of ``task=captioning``, and how it writes."""

    decoder: str | None = option(
        None, "Pretrained language model of transformers: a hub name or a local folder. null: a GPT-2 from nothing, of the sizes below."
    )
    vocab_size: int = option(
        8192,
        "decoder=null: size of the vocabulary, CLIP's with only its first merges; 49408 is all of it.",
        within=Range(514, 49408),
        used=NEW_DECODER,
    )
    dim: int = option(256, "decoder=null: channels; a multiple of captioning.heads.", within=COUNT, used=NEW_DECODER)
    layers: int = option(3, "decoder=null: transformer blocks.", within=COUNT, used=NEW_DECODER)
    heads: int = option(4, "decoder=null: heads of each attention.", within=COUNT, used=NEW_DECODER)
    dropout: float = option(0.1, "decoder=null: dropout.", within=BELOW_ONE, used=NEW_DECODER)
    max_length: int = option(40, "Tokens of a caption at most; longer ones are cut.", within=COUNT)
    label_smoothing: float = option(0.1, "Share of each target that is spread over the vocabulary.", within=BELOW_ONE)
    num_beams: int = option(3, "Captions that are followed at once when one is written; 1 is greedy.", within=COUNT, resume=Resume.free)
    length_penalty: float = option(
        1.0,
        "Beams are compared by log probability / length ** this; higher makes captions longer.",
        within=NOT_NEGATIVE,
        resume=Resume.free,
    )
    no_repeat_ngram_size: int = option(
        3, "No run of so many tokens is written twice in a caption; 0: any may.", within=NOT_NEGATIVE, resume=Resume.free
    )
