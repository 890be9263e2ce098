"""A text tower of Hugging Face."""

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from tests.tiny import WORDS


@pytest.fixture
def bert(tmp_path):
    """A folder as ``save_pretrained`` writes it."""
    folder = tmp_path / "bert"
    special = ["<pad>", "<unk>", "<s>", "</s>"]
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(special + WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)])
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(**sizes, pad_token_id=0, max_position_embeddings=64)).save_pretrained(folder)
    return str(folder)
