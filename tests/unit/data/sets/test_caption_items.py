import pytest
import torch

from timix_pl.core.sample import Sample
from timix_pl.data.sets.caption_items import CaptionItems
from timix_pl.data.shards.reader import BadSampleError


def letters(captions):
    rows = [torch.tensor([0, *map(ord, caption)]) for caption in captions]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])


def test_every_caption_is_an_item():
    assert CaptionItems(letters).of(Sample("a", b"", "jpg", captions=("one", "two"))) == ("one", "two")


def test_the_loss_counts_tokens_behind_the_first_mark():
    items, num_items = CaptionItems(letters).collate(["abc", "a"])
    assert items["tokens"].tolist() == [[0, 97, 98, 99], [0, 97, 0, 0]] and items["length"].tolist() == [4, 2]
    assert num_items == {"caption": 4}


def test_a_sample_without_captions_is_a_bad_one():
    with pytest.raises(BadSampleError, match="no caption"):
        CaptionItems(letters).of(Sample("a", b"", "jpg"))
