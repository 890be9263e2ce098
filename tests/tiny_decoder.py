"""Folders of small language models, as transformers saves them."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertLMHeadModel, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.tiny import WORDS

WORD_TOKENS = ["<unk>", "<s>", "</s>", *WORDS]


def tiny_gpt2(vocab_size):
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, n_positions=12, n_embd=16, n_layer=2, n_head=2))


def tiny_bert(vocab_size):
    return BertLMHeadModel(
        BertConfig(
            vocab_size=vocab_size,
            max_position_embeddings=12,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            is_decoder=True,
        )
    )


def tiny_llama(vocab_size):
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    )


def write_decoder(folder, make=tiny_gpt2, *, vocab_size=None, seed=0, **marks):
    """A model with random weights and a tokenizer whose tokens are the words of ``tests.tiny``."""
    torch.manual_seed(seed)
    make(vocab_size or len(WORD_TOKENS)).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORD_TOKENS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = marks or {"bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", **marks).save_pretrained(folder)
    return str(folder)
