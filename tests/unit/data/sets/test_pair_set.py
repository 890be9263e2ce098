"""A step's batch: the same bytes at any world size, bad samples replaced and reported, regions with their phrases."""

import io
import json
import pickle
import tarfile

import pytest
import torch
from torch.utils.data import DataLoader

from tests.tiny import GRID, IMAGE_SIZE_PX, encoded_image, random_captions, random_pixels, write_shards
from timix_pl.core.errors import DataError
from timix_pl.core.sample import Region
from timix_pl.data.images.training_images import Augmentation
from timix_pl.data.sets.pair_set import PairSet
from timix_pl.data.sets.sample_stream import SampleStream
from timix_pl.data.shards import local_tar
from timix_pl.data.shards.reader import ShardReader
from timix_pl.data.shards.sources import resolve_shards
from timix_pl.data.shards.writer import ShardWriter


def tokenizer(texts):
    """Bytes, so that any caption can be read back."""
    return torch.tensor([list(text.encode().ljust(80)[:80]) for text in texts])


def texts_of(tokens):
    return [bytes(row).decode().strip() for row in tokens.tolist()]


def joined(parts, list_of):
    return [item for part in parts for item in list_of(part)]


def stream(folder, name="train", seed=3):
    return SampleStream(str(folder), key=f"data.{name}_shards", seed=seed, name=name, window_shards=2)


def pair_set(pairs, regions=None, **options):
    defaults = {"image_size_px": IMAGE_SIZE_PX, "patch_grid": GRID, "global_batch_size": 8, "seed": 3, "region_batch_size": 4}
    return PairSet(stream(pairs), regions and stream(regions, "region"), tokenizer, **(defaults | options))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("pairs") / "shards", 30)


@pytest.fixture(scope="module")
def regions(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("regions") / "shards", 12, seed=1, num_regions=3)


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_have_the_batch_of_one(pairs, regions, world_size):
    augmentation = Augmentation((0.5, 1.0), (0.75, 4 / 3), True)
    alone = pair_set(pairs, regions, augmentation=augmentation)
    ranks = [pair_set(pairs, regions, augmentation=augmentation, rank=rank, world_size=world_size) for rank in range(world_size)]
    for step in (0, 1, 7):  # the 7th holds the end of one epoch and the start of the next
        whole, parts = alone[step], [rank[step] for rank in ranks]
        assert [part.first for part in parts] == [rank * 8 // world_size for rank in range(world_size)]
        for name in ("images", "tokens"):
            assert torch.cat([getattr(part, name) for part in parts]).equal(getattr(whole, name))
        assert joined(parts, lambda part: part.keys) == whole.keys
        assert joined(parts, lambda part: part.captions) == whole.captions == texts_of(whole.tokens)
        for name in ("images", "tokens", "patch_labels"):
            assert torch.cat([getattr(part.regions, name) for part in parts]).equal(getattr(whole.regions, name))
        shifted = [part.regions.image_index + rank * 4 // world_size for rank, part in enumerate(parts)]
        assert torch.cat(shifted).equal(whole.regions.image_index)


def test_a_step_is_the_same_whoever_reads_it_and_whenever(pairs, regions):
    steps = pair_set(pairs, regions)
    one = steps[5]
    steps[0]
    again = steps[5]
    assert one.images.equal(again.images) and one.regions.tokens.equal(again.regions.tokens)
    loader = DataLoader(pair_set(pairs, regions), batch_size=None, sampler=range(6), num_workers=2)
    from_worker = list(loader)[5]
    assert one.images.equal(from_worker.images) and one.keys == from_worker.keys
    here, there = one.regions, from_worker.regions
    assert here.images.equal(there.images) and here.patch_labels.equal(there.patch_labels)


def test_it_can_be_sent_to_a_process_that_does_not_share_memory(pairs, regions):
    """As loaders do where processes are spawned."""
    steps = pair_set(pairs, regions)
    steps[1]
    batch, sent = steps[3], pickle.loads(pickle.dumps(steps))[3]
    assert batch.images.equal(sent.images) and batch.keys == sent.keys and batch.regions.tokens.equal(sent.regions.tokens)


def test_a_blend_of_sources_can_be_sent_too(pairs, regions):
    both = SampleStream([str(pairs), str(regions)], key="k", seed=0, name="a", window_shards=2)
    before = both.order.locate(0, 20)
    assert (pickle.loads(pickle.dumps(both)).order.locate(0, 20) == before).all()


def test_an_epoch_has_every_sample_once_and_the_next_has_other_crops_and_captions(pairs):
    steps = pair_set(pairs, global_batch_size=10, augmentation=Augmentation((0.5, 1.0)))
    batches = [steps[number] for number in range(6)]
    epochs = [[row for b in part for row in zip(b.keys, b.images, b.captions, strict=True)] for part in (batches[:3], batches[3:])]
    for epoch in epochs:
        assert sorted(key for key, _, _ in epoch) == sorted(f"s{number}" for number in range(30))
    first, second = ({key: (image, caption) for key, image, caption in epoch} for epoch in epochs)
    assert sum(not first[key][0].equal(second[key][0]) for key in first) > 25
    assert 5 < sum(first[key][1] != second[key][1] for key in first) < 25  # one of two captions
    assert all(caption in random_captions(2, int(key[1:])) for key, (_, caption) in first.items())


def test_pixels_of_the_whole_image_are_those_of_the_file(pairs):
    """With no crop left to chance, the image is the whole picture, shrunk."""
    steps = pair_set(pairs, image_size_px=(40, 60), patch_grid=(5, 6), augmentation=Augmentation((1.0, 1.0), (1.5, 1.5), False))
    batch = steps[0]
    assert batch.regions is None and batch.images.dtype == torch.uint8 and batch.images.shape == (8, 3, 40, 60)
    for key, image in zip(batch.keys, batch.images, strict=True):
        assert image.permute(1, 2, 0).equal(torch.tensor(random_pixels(40, 60, int(key[1:]))))


@pytest.fixture(scope="module")
def bad_pairs(tmp_path_factory):
    """Twelve samples; every third is bad, in four ways."""
    folder = tmp_path_factory.mktemp("bad") / "shards"
    with ShardWriter(folder, samples_per_shard=5) as writer:
        for number in range(12):
            image = encoded_image(random_pixels(40, 60, number), "PNG")
            captions = ["a red ring"]
            if number == 1:
                captions = []
            elif number == 4:
                image = image[: len(image) // 2]
            elif number == 7:
                image = encoded_image(random_pixels(6, 60, number), "PNG")  # less than a patch high
            elif number == 10:
                image = b"not an image"
            writer.write(f"s{number}", image, "png", captions=captions)
    return folder


REASONS = {"s1": "no caption", "s4": "cannot be decoded", "s7": "60 x 6 pixels is smaller than a patch of 8", "s10": "cannot be decoded"}


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_bad_samples_are_replaced_alike_everywhere_and_named(bad_pairs, world_size):
    whole = pair_set(bad_pairs, global_batch_size=12)[0]
    parts = [pair_set(bad_pairs, global_batch_size=12, rank=rank, world_size=world_size)[0] for rank in range(world_size)]
    assert joined(parts, lambda part: part.keys) == whole.keys
    assert torch.cat([part.images for part in parts]).equal(whole.images)
    assert len(whole.keys) == 12 and not set(whole.keys) & set(REASONS)
    problems = joined(parts, lambda part: part.problems)
    assert problems == whole.problems
    assert {problem["key"] for problem in problems} == set(REASONS)
    for problem in problems:
        assert REASONS[problem["key"]] in problem["reason"]
        assert problem["stream"] == "data.train_shards"
        assert problem["shard"] == f"shard-{int(problem['key'][1:]) // 5:06d}.tar"


def test_the_good_samples_of_an_epoch_all_come(bad_pairs):
    keys = pair_set(bad_pairs, global_batch_size=12)[1].keys
    assert set(keys) == {f"s{number}" for number in range(12)} - set(REASONS)


def with_bad(folder, bad):
    """Three shards of eight samples, of which those in ``bad`` are no images."""
    with ShardWriter(folder, samples_per_shard=8) as writer:
        for number in range(24):
            image = b"not an image" if number in bad else encoded_image(random_pixels(40, 60, number), "PNG")
            writer.write(f"s{number}", image, "png", captions=["a red ring"])
    return folder


def test_a_replacement_is_of_the_same_shard_so_that_no_other_is_opened_for_it(tmp_path):
    steps = pair_set(with_bad(tmp_path / "shards", {3, 4, 9, 20}), global_batch_size=24)
    taken_from = {}
    for epoch in range(5):
        batch = steps[epoch]
        for problem in batch.problems:
            assert batch.shards[problem["position"] - 24 * epoch] == problem["shard"]
            taken_from.setdefault(problem["key"], set()).add(batch.keys[problem["position"] - 24 * epoch])
    assert set(taken_from) == {"s3", "s4", "s9", "s20"} and all(len(keys) > 1 for keys in taken_from.values())  # others in other epochs


def test_a_shard_of_bad_samples_alone_is_replaced_from_the_others(tmp_path):
    steps = pair_set(with_bad(tmp_path / "shards", range(8, 16)), global_batch_size=24)
    batch = steps[0]
    assert len(batch.keys) == 24 and set(batch.shards) == {"shard-000000.tar", "shard-000002.tar"}
    for position in {problem["position"] for problem in batch.problems}:
        tried = [problem["key"] for problem in batch.problems if problem["position"] == position]
        assert len(tried) == len(set(tried)) > 4, "each of the shard is looked at once at most"
    assert batch.keys == pair_set(tmp_path / "shards", global_batch_size=24)[0].keys


def test_shards_with_nothing_usable_end_in_an_error(tmp_path):
    with ShardWriter(tmp_path / "shards") as writer:
        for number in range(3):
            writer.write(f"s{number}", b"broken", "jpg", captions=["a"])
    with pytest.raises(DataError, match=r"data\.train_shards: 100 samples in a row.*cannot be decoded.*timix-data inspect"):
        pair_set(tmp_path / "shards")[0]


def test_missing_shards_are_told_by_key(tmp_path):
    for spec in (tmp_path / "nowhere", tmp_path / "part-*.tar"):
        with pytest.raises(DataError, match=r"data\.train_shards="):
            pair_set(spec)


def test_all_ranks_have_regions_or_none(pairs, regions):
    for step in range(7):
        for rank in range(2):
            found = pair_set(pairs, regions, region_every_n_steps=3, rank=rank, world_size=2)[step].regions
            assert (found is not None) == (step % 3 == 0)


def test_the_region_stream_goes_on_where_it_stood_at_the_last_region_batch(pairs, regions):
    every, third = pair_set(pairs, regions), pair_set(pairs, regions, region_every_n_steps=3)
    assert [third[step].regions.keys for step in (0, 3, 6)] == [every[step].regions.keys for step in (0, 1, 2)]


def test_phrases_point_at_their_image_and_their_patches(pairs, regions):
    """Without cropping, a patch is labelled where the phrase's box touches it."""
    steps = pair_set(pairs, regions, augmentation=Augmentation((1.0, 1.0), (1.5, 1.5), False), phrase_template="a photo of {}")
    samples = {sample.key: sample for sample in ShardReader([s.tars.manifest() for s in resolve_shards(str(regions))])}
    found = steps[2].regions
    assert found.images.shape == (4, 3, *IMAGE_SIZE_PX) and sorted(set(found.image_index.tolist())) == [0, 1, 2, 3]
    for text, image, labels in zip(texts_of(found.tokens), found.image_index.tolist(), found.patch_labels, strict=True):
        (region,) = [r for r in samples[found.keys[image]].regions if f"a photo of {r.phrase}" == text]
        x0, y0, x1, y1 = region.bbox_xyxy_norm
        for patch, label in enumerate(labels.tolist()):
            row, column = divmod(patch, GRID[1])
            touched = x0 < (column + 1) / GRID[1] and x1 > column / GRID[1] and y0 < (row + 1) / GRID[0] and y1 > row / GRID[0]
            assert label == float(touched)
    assert len(found.tokens) == 12


def test_a_phrase_with_several_boxes_means_all_of_them(tmp_path, pairs):
    left, right = (0.0, 0.0, 1 / 6, 0.25), (5 / 6, 0.75, 1.0, 1.0)
    with ShardWriter(tmp_path / "shards") as writer:
        image = encoded_image(random_pixels(40, 60, 0), "PNG")
        writer.write("a", image, "png", regions=[Region("dog", left), Region("cat", left), Region("dog", right)])
    steps = pair_set(pairs, tmp_path / "shards", region_batch_size=1, augmentation=Augmentation((1.0, 1.0), (1.5, 1.5), False))
    found = steps[0].regions
    labels = dict(zip(texts_of(found.tokens), found.patch_labels, strict=True))
    assert labels["dog"].nonzero().flatten().tolist() == [0, 23] and labels["cat"].nonzero().flatten().tolist() == [0]


def test_no_image_has_more_phrases_than_asked_for_and_all_come_in_time(pairs, regions):
    steps = pair_set(pairs, regions, max_phrases=2)
    seen = {}
    for step in range(30):
        found = steps[step].regions
        assert torch.bincount(found.image_index, minlength=4).tolist() == [2, 2, 2, 2]
        for text, image in zip(texts_of(found.tokens), found.image_index.tolist(), strict=True):
            seen.setdefault(found.keys[image], set()).add(text)
    assert all(len(phrases) == 3 for phrases in seen.values()) and len(seen) == 12


def test_negatives_are_phrases_of_other_images_labelled_nowhere(tmp_path, pairs):
    with ShardWriter(tmp_path / "shards") as writer:
        for number in range(8):
            image = encoded_image(random_pixels(40, 60, number), "PNG")
            boxes = [Region("everywhere", (0.1, 0.1, 0.9, 0.9)), *(Region(f"only {number} {n}", (0.1, 0.1, 0.9, 0.9)) for n in range(2))]
            writer.write(f"s{number}", image, "png", regions=boxes)
    plain = pair_set(pairs, tmp_path / "shards", region_batch_size=8)[0].regions
    found = pair_set(pairs, tmp_path / "shards", region_batch_size=8, negative_frac=1.0)[0].regions
    num_own = len(plain.tokens)
    assert found.tokens[:num_own].equal(plain.tokens) and found.patch_labels[:num_own].equal(plain.patch_labels)
    added = list(zip(texts_of(found.tokens[num_own:]), found.image_index[num_own:].tolist(), strict=True))
    assert len(added) == 16  # each phrase that only one image has, once; "everywhere" is nobody's negative
    assert found.patch_labels[num_own:].sum() == 0
    for text, image in added:
        assert text.startswith("only ") and not text.startswith(f"only {found.keys[image][1:]} ")
    steps = pair_set(pairs, tmp_path / "shards", region_batch_size=8, negative_frac=0.25)
    num_drawn = sum(len(steps[step].regions.tokens) - num_own for step in range(50))
    assert 150 < num_drawn < 250  # 16 in each of 50 steps, one of four


def test_the_same_negatives_are_drawn_at_any_world_size(pairs, regions):
    alone = pair_set(pairs, regions, negative_frac=0.5)
    ranks = [pair_set(pairs, regions, negative_frac=0.5, rank=rank, world_size=4) for rank in range(4)]
    for step in range(3):
        whole = alone[step].regions
        described = set(zip(texts_of(whole.tokens), whole.image_index.tolist(), whole.patch_labels.sum(1).tolist(), strict=True))
        assert any(num_positive == 0 for _, _, num_positive in described)
        parts = [rank[step].regions for rank in ranks]
        assert described == {
            (text, image + number, num_positive)
            for number, part in enumerate(parts)
            for text, image, num_positive in zip(
                texts_of(part.tokens), part.image_index.tolist(), part.patch_labels.sum(1).tolist(), strict=True
            )
        }


def test_a_negative_is_none_of_the_images_phrases_also_those_not_shown(tmp_path, pairs):
    """One phrase per image is drawn, but 'dog' is in both images and is nobody's negative."""
    with ShardWriter(tmp_path / "shards") as writer:
        for number in range(6):
            image = encoded_image(random_pixels(40, 60, number), "PNG")
            writer.write(f"s{number}", image, "png", regions=[Region(p, (0.1, 0.1, 0.9, 0.9)) for p in ("dog", f"cat {number}")])
    steps = pair_set(pairs, tmp_path / "shards", region_batch_size=6, negative_frac=1.0, max_phrases=1)
    added = [text for step in range(10) for text in texts_of(steps[step].regions.tokens)[6:]]
    assert added and "dog" not in added


def test_captions_are_positive_everywhere_only_where_asked(pairs, regions):
    plain = pair_set(pairs, regions)[0].regions
    found = pair_set(pairs, regions, caption_positive=True)[0].regions
    num_own = len(plain.tokens)
    assert found.tokens[:num_own].equal(plain.tokens)
    assert found.patch_labels[num_own:].eq(1).all() and found.image_index[num_own:].tolist() == [0, 1, 2, 3]
    for text, key in zip(texts_of(found.tokens[num_own:]), found.keys, strict=True):
        assert text in random_captions(2, 1000 + int(key[1:]))


def test_unusable_regions_are_left_out_and_named(tmp_path, pairs):
    good = {"phrase": "good", "bbox_xyxy_norm": [0.2, 0.2, 0.8, 0.8]}
    outside = {"phrase": "outside", "bbox_xyxy_norm": [1.2, 1.2, 1.8, 1.8]}
    with ShardWriter(tmp_path / "shards") as writer:
        for key in ("both", "none"):
            writer.write(key, encoded_image(random_pixels(40, 60, 0), "PNG"), "png")
    tar = tmp_path / "shards" / "shard-000000.tar"
    with tarfile.open(tar) as source, tarfile.open(tmp_path / "foreign.tar", "w") as target:  # the writer itself refuses such boxes
        for member in source:
            content = source.extractfile(member).read()
            if member.name.endswith(".json"):
                content = json.dumps({"regions": [good, outside] if member.name == "both.json" else [outside]}).encode()
            info = tarfile.TarInfo(member.name)
            info.size = len(content)
            target.addfile(info, io.BytesIO(content))
    batch = pair_set(pairs, tmp_path / "foreign.tar", region_batch_size=2)[0]
    assert set(texts_of(batch.regions.tokens)) == {"good"} and batch.regions.keys == ["both", "both"]
    reasons = {(problem["key"], problem["stream"]): problem["reason"] for problem in batch.problems}
    assert "1 region left out: no phrase, outside the image, or in pixels" in reasons[("both", "data.region_shards")]
    assert {problem["folder"] for problem in batch.problems} == {str(tmp_path)}
    assert "no region" in reasons[("none", "data.region_shards")]


def test_a_small_box_that_crops_miss_keeps_its_image_usable(tmp_path, pairs):
    with ShardWriter(tmp_path / "shards") as writer:
        writer.write("a", encoded_image(random_pixels(40, 60, 0), "PNG"), "png", regions=[Region("corner", (0.0, 0.0, 0.01, 0.01))])
    steps = pair_set(pairs, tmp_path / "shards", region_batch_size=1, augmentation=Augmentation((0.05, 0.1), (0.75, 4 / 3), True))
    for step in range(20):
        assert texts_of(steps[step].regions.tokens) == ["corner"]


def test_fingerprints_follow_content_weights_and_window(tmp_path, pairs, regions):
    def fingerprint(shards, **options):
        return SampleStream(shards, **({"key": "k", "seed": 0, "name": "a", "window_shards": 2} | options)).fingerprint

    first, second = str(pairs), str(regions)
    base = fingerprint([{"path": first, "weight": 1}, {"path": second, "weight": 2}])
    assert base == fingerprint([{"path": first, "weight": 1}, {"path": second, "weight": 2}])
    assert base != fingerprint([{"path": first, "weight": 1}, {"path": second, "weight": 3}])
    assert base != fingerprint([{"path": second, "weight": 1}, {"path": first, "weight": 2}])
    assert fingerprint(first) != fingerprint(first, window_shards=3)
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in pairs.iterdir():
        if path.suffix == ".tar":
            (moved / path.name).write_bytes(path.read_bytes())
    assert fingerprint(str(moved)) == fingerprint(first)


def test_sources_are_drawn_by_weight(pairs, regions):
    both = SampleStream(
        [{"path": str(pairs), "weight": 3}, {"path": str(regions), "weight": 1}], key="k", seed=0, name="a", window_shards=2
    )
    assert both.num_samples == 42
    numbers = both.order.locate(0, 4096)[:, 1]
    assert (numbers < 30).sum() == 3072
    assert both.reader[30].regions and not both.reader[29].regions


def test_each_shard_of_a_window_is_opened_once(tmp_path, monkeypatch):
    write_shards(tmp_path / "shards", 40, samples_per_shard=1)
    opened = []
    monkeypatch.setattr(local_tar, "load_index", lambda path, load=local_tar.load_index: opened.append(path) or load(path))
    both = [{"path": f"{tmp_path}/shards/shard-0000{tens}?.tar", "weight": weight} for tens, weight in ((0, 1), (3, 2))]
    wide = SampleStream(both, key="k", seed=0, name="a", window_shards=20)
    wide.load(0, 300, lambda sample, ids: sample.key, [])
    assert len(opened) == len(set(opened)) == 20


def test_of_shards_with_the_same_name_the_folder_of_a_bad_sample_is_told(tmp_path):
    sources = [str(with_bad(tmp_path / name, bad)) for name, bad in (("one", {0}), ("two", {9}))]
    pairs = SampleStream(sources, key="data.train_shards", seed=3, name="train", window_shards=2)
    batch = PairSet(pairs, None, tokenizer, image_size_px=IMAGE_SIZE_PX, patch_grid=GRID, global_batch_size=48, seed=3)[0]
    told = {(problem["folder"], problem["shard"], problem["key"]) for problem in batch.problems}
    assert told == {(sources[0], "shard-000000.tar", "s0"), (sources[1], "shard-000001.tar", "s9")}
