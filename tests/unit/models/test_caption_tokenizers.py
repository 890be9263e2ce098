import pickle
import random

import open_clip
import pytest
import torch

from tests.tiny_decoder import WORD_TOKENS, write_decoder
from timix_pl.core.errors import ModelError
from timix_pl.models.caption_decoder import pretrained_decoder
from timix_pl.models.caption_tokenizers import MAX_VOCAB_SIZE, MIN_VOCAB_SIZE, CaptionsToTokens, ClipBpe

CAPTIONS = ["two dogs run through the snow", "a café near the 日本 sign", "the dog's ball", "<end_of_text> and <start_of_text>", "-", "🙂"]


@pytest.mark.parametrize("vocab_size", [MIN_VOCAB_SIZE, 700, 8192, MAX_VOCAB_SIZE])
def test_any_caption_comes_back_from_any_vocabulary(vocab_size):
    tokenizer = ClipBpe(vocab_size)
    for caption in CAPTIONS:
        tokens = tokenizer.encode(caption)
        assert tokenizer.decode(tokens) == caption
        assert max(tokens) < vocab_size - 2 == tokenizer.start_id == tokenizer.end_id - 1


def test_the_whole_vocabulary_is_that_of_clip():
    tokens, lengths = CaptionsToTokens(ClipBpe(MAX_VOCAB_SIZE), 76)(CAPTIONS[:3])
    for row, length, caption in zip(tokens, lengths, CAPTIONS, strict=False):
        assert row[:length].tolist() == open_clip.get_tokenizer("ViT-B-32")([caption])[0, :length].tolist()


def test_fewer_merges_make_longer_captions():
    lengths = [len(ClipBpe(size).encode(CAPTIONS[0])) for size in (MIN_VOCAB_SIZE, 1024, MAX_VOCAB_SIZE)]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] > lengths[1] > lengths[2] == 6
    assert lengths[0] == len(CAPTIONS[0].replace(" ", ""))


def test_spaces_are_left_out_where_captions_have_none():
    tokenizer = ClipBpe(8192)
    caption = "number 10's snow-covered t-shirt isn't red, is it?"
    assert tokenizer.decode(tokenizer.encode(caption)) == caption


def test_tokens_that_are_no_text_do_not_stop_anybody():
    rng = random.Random(0)
    tokenizer = ClipBpe(2000)
    for _ in range(50):
        assert isinstance(tokenizer.decode([rng.randrange(1998) for _ in range(8)]), str)


def test_rows_are_filled_with_end_marks_and_cut_captions_have_none():
    tokenizer = ClipBpe(8192)
    tokens, lengths = CaptionsToTokens(tokenizer, 4)(["a dog", "a dog in the snow", "a red dog"])
    words = tokenizer.encode("a dog in the snow")
    assert tokens[0].tolist() == [8190, *words[:2], 8191, 8191]
    assert tokens[1].tolist() == [8190, *words[:4]]
    assert lengths.tolist() == [4, 5, 5]


def test_it_goes_to_loader_processes_and_back(tmp_path):
    hub = pretrained_decoder(8, write_decoder(tmp_path), max_length=8).tokenizer
    for tokenizer in (ClipBpe(1000), hub):
        before, after = (CaptionsToTokens(it, 8)(["a red ring"])[0] for it in (tokenizer, pickle.loads(pickle.dumps(tokenizer))))
        assert torch.equal(before, after)


def test_the_tokenizer_of_a_decoder(tmp_path):
    tokenizer = pretrained_decoder(8, write_decoder(tmp_path), max_length=8).tokenizer
    tokens, _ = CaptionsToTokens(tokenizer, 8)(["red ring"])
    assert [WORD_TOKENS[number] for number in tokens[0]] == ["<s>", "red", "ring", "</s>"]
    assert tokenizer.decode(tokens[0].tolist()) == "red ring"


def test_a_tokenizer_with_the_marks_of_bert(tmp_path):
    tokenizer = pretrained_decoder(8, write_decoder(tmp_path, cls_token="<s>", sep_token="</s>"), max_length=8).tokenizer
    assert (tokenizer.start_id, tokenizer.end_id) == (1, 2)


def test_a_tokenizer_without_marks_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"^`name=.*no tokens for the start and the end"):
        pretrained_decoder(8, write_decoder(tmp_path, bos_token="<s>"), max_length=8)
