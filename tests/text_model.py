"""A text tower of Hugging Face with its tokenizer, as a folder."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from tests.tiny import WORDS


def write_text_model(folder: Path, kind: str) -> str:
    """What ``save_pretrained`` writes of a ``bert`` or ``roberta`` and its tokenizer; returns the folder."""
    special = ["<pad>", "<unk>", "<s>", "</s>"]
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(special + WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)])
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 40,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "pad_token_id": 0,
    }
    if kind == "bert":
        BertModel(BertConfig(**sizes, max_position_embeddings=64)).save_pretrained(folder)
    else:
        RobertaModel(RobertaConfig(**sizes, max_position_embeddings=64)).save_pretrained(folder)
    return str(folder)
