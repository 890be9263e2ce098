"""A fine-tuning step's batch: the same at any world size, items in turn, bad samples replaced."""

import pickle

import pytest
import torch

from tests.tiny import encoded_image, random_captions, random_pixels, tiny_model
from tests.tiny_task import item_set
from timix_pl.data.images.training_images import Augmentation
from timix_pl.data.sets.item_set import in_turn
from timix_pl.data.sets.sample_stream import SampleStream
from timix_pl.data.shards.writer import ShardWriter

MODEL = tiny_model()


def stream(folder):
    return SampleStream(str(folder), key="data.train_shards", seed=0, name="train", window_shards=2)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Images with one to five captions each; the third has none."""
    folder = tmp_path_factory.mktemp("task") / "shards"
    with ShardWriter(folder, samples_per_shard=5) as writer:
        for number in range(14):
            captions = random_captions(number % 5 + 1, number) if number != 2 else []
            writer.write(f"s{number}", encoded_image(random_pixels(40, 60, number), "PNG"), "png", captions=captions)
    return stream(folder)


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_have_the_batch_of_one(samples, world_size):
    options = {"augmentation": Augmentation((0.5, 1.0), (0.75, 1.33), True)}
    alone = item_set(samples, MODEL, **options)
    ranks = [item_set(samples, MODEL, rank=rank, world_size=world_size, **options) for rank in range(world_size)]
    for step in (0, 1, 5):
        whole, parts = alone[step], [rank[step] for rank in ranks]
        assert torch.cat([part.images for part in parts]).equal(whole.images)
        for name, tensor in whole.items.items():
            assert torch.cat([part.items[name] for part in parts]).equal(tensor)
        assert torch.cat([part.image_index + part.first for part in parts]).equal(whole.image_index)
        assert [key for part in parts for key in part.keys] == whole.keys
        assert [count for part in parts for count in part.items_per_image] == whole.items_per_image
        assert {name: sum(part.items_of_term[name] for part in parts) for name in whole.items_of_term} == whole.items_of_term
        assert [problem for part in parts for problem in part.problems] == whole.problems


def test_items_point_at_their_image(samples):
    batch = item_set(samples, MODEL, items_per_image=9)[0]
    captions = [caption for key in batch.keys for caption in random_captions(int(key[1:]) % 5 + 1, int(key[1:]))]
    assert batch.items["tokens"].equal(MODEL.tokenizer(captions))
    assert batch.image_index.tolist() == [row for row, key in enumerate(batch.keys) for _ in range(int(key[1:]) % 5 + 1)]
    assert max(batch.items_per_image) > 1 and sum(batch.items_of_term.values()) == len(captions)


def test_a_sample_without_items_is_replaced_and_named(samples):
    batches = [item_set(samples, MODEL)[step] for step in range(2)]
    assert all("s2" not in batch.keys for batch in batches)
    problems = [problem for batch in batches for problem in batch.problems]
    assert {(problem["key"], problem["reason"], problem["outcome"]) for problem in problems} == {
        ("s2", "the sample has no caption", "replaced")
    }


def test_all_items_come_in_turn():
    """Seven items, three a time: every item within three epochs, each as often as the others within seven."""
    assert in_turn("abc", 3, 5, 1) == ["a", "b", "c"] and in_turn("ab", 3, 0, 0) == ["a", "b"]
    epochs = [in_turn("abcdefg", 3, epoch, 4) for epoch in range(7)]
    assert epochs[0] == ["e", "f", "g"] and set().union(*epochs[:3]) == set("abcdefg")
    drawn = [item for epoch in epochs for item in epoch]
    assert all(drawn.count(item) == 3 for item in "abcdefg")


def test_the_items_of_a_step_change_with_the_epoch_and_not_with_who_reads_it(tmp_path):
    with ShardWriter(tmp_path / "shards") as writer:
        for number in range(8):
            writer.write(f"s{number}", encoded_image(random_pixels(40, 60, number), "PNG"), "png", captions=random_captions(4, number))
    steps = item_set(stream(tmp_path / "shards"), MODEL)
    sent = pickle.loads(pickle.dumps(steps))
    seen = {}
    for epoch in range(2):
        batch = steps[epoch]
        assert sent[epoch].items["tokens"].equal(batch.items["tokens"]) and sent[epoch].images.equal(batch.images)
        for image, tokens in zip(batch.image_index.tolist(), batch.items["tokens"].tolist(), strict=True):
            seen.setdefault(batch.keys[image], []).append(tokens)
    assert len(seen) == 8
    for key, drawn in seen.items():
        assert sorted(drawn) == sorted(MODEL.tokenizer(random_captions(4, int(key[1:]))).tolist())
