"""The batch of a training step, made from only the step's number. The workers of the loader run this."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from timix_pl.core.errors import DataError
from timix_pl.core.randomness import permutation, seed_of, uniform
from timix_pl.core.sample import Sample
from timix_pl.core.types import Batch, RegionBatch
from timix_pl.core.words import counted
from timix_pl.data.images.augment import Crop, crop_regions, usable_regions
from timix_pl.data.images.training_images import Augmentation, TrainingImages, stack
from timix_pl.data.order import BlendedOrder, SourceOrder
from timix_pl.data.remote.remote_tar import RemoteAccess
from timix_pl.data.sets.patch_labels import boxes_by_phrase, patch_labels
from timix_pl.data.shards.reader import BadSampleError, ShardReader
from timix_pl.data.shards.sources import resolve_shards

_MAX_REPLACEMENTS = 100
_MAX_OF_SHARD = 20
"""So many replacements are drawn from the shard of the bad sample, and later ones from any shard."""

_MAX_REGION_CROPS = 4
_INSPECT = "'timix-data inspect SHARDS' shows what shards hold. Repair them, or name others"


class SampleStream:
    """The samples of shards in their endless training order. Bad samples are replaced.

    Args:
        shards: a folder, a pattern, or a list with weights.
        key: the configuration key that named them.
        seed: the run's seed.
        name: streams with the same seed and another name have another order.
        window_shards: shards whose samples are shuffled together.
        max_image_mb: a sample with a member of more megabytes is a bad one, and is not read.
        access: how remote shards are read.
    Raises:
        DataError: missing shards, an empty pattern, or a source that cannot be reached.
    """

    def __init__(
        self,
        shards: Any,
        *,
        key: str,
        seed: int,
        name: str,
        window_shards: int,
        max_image_mb: float = 100.0,
        access: RemoteAccess = RemoteAccess(),  # noqa: B008
    ):
        sources = resolve_shards(shards, key, access)
        manifests = [source.tars.manifest() for source in sources]
        orders = [
            SourceOrder(manifest.shards.sizes, seed=seed, name=f"{name}-{number}", window_shards=window_shards)
            for number, manifest in enumerate(manifests)
        ]
        self.order = BlendedOrder(orders, [source.weight for source in sources], seed=seed)
        self.reader = ShardReader(manifests, open_shards=window_shards * len(manifests) + 1, max_image_mb=max_image_mb)
        weights = [source.weight for source in sources]
        self.fingerprint = f"{seed_of(name, window_shards, *[m.fingerprint for m in manifests], *map(str, weights)):016x}"
        self.num_problems = sum(int(manifest.shards.num_problems.sum()) for manifest in manifests)
        self._key, self._seed = key, seed

    @property
    def num_samples(self) -> int:
        """Samples in all sources."""
        return self.order.num_samples

    def check(self, use: Callable[[Sample], Any]) -> None:
        """Check before a run that some samples can be used. No image is read. Of a large set 64 samples are checked.

        Args:
            use: raises ``BadSampleError`` for a sample that it cannot use.
        Raises:
            DataError: none of them can be used.
        """
        numbers, reason = self.reader.some(), ""
        for number in numbers:
            try:
                use(self.reader.without_image(number))
                return
            except BadSampleError as error:
                reason = str(error)
        raise DataError(f"{self._key}: none of the {len(numbers)} samples looked at can be used; the last reason: {reason}. {_INSPECT}")

    def load(self, start: int, count: int, use: Callable[[Sample, tuple[int, int]], Any], problems: list[dict[str, Any]]) -> list[Any]:
        """The results of ``use(sample, (epoch, number))`` for ``count`` positions from ``start`` on.

        A sample for which ``use`` raises ``BadSampleError`` is replaced by another, always by the same one.

        Args:
            problems: gets the stream, position, folder, shard, key, reason and outcome of each bad sample.
        Raises:
            DataError: 100 samples in a row cannot be used.
        """
        located = self.order.locate(start, start + count)
        self.reader.expect(located[:, 1].tolist(), lambda: self.order.shards_from(start))
        return [self._load_one(position, int(epoch), int(number), use, problems) for position, (epoch, number) in enumerate(located, start)]

    def _load_one(
        self, position: int, epoch: int, number: int, use: Callable[[Sample, tuple[int, int]], Any], problems: list[dict[str, Any]]
    ) -> Any:
        tried: set[int] = set()
        for attempt in range(_MAX_REPLACEMENTS):
            near = self.reader.numbers_beside(number) if attempt <= _MAX_OF_SHARD else range(len(self.reader))
            chosen = near[seed_of("replacement", self._seed, epoch, number, attempt) % len(near)] if attempt else number
            if chosen in tried:
                continue
            tried.add(chosen)
            try:
                return use(self.reader[chosen], (epoch, chosen))
            except BadSampleError as error:
                shard, key = self.reader.name(chosen)
                where = {"stream": self._key, "position": position, "folder": self.reader.folder(chosen), "shard": shard, "key": key}
                problems.append(where | {"reason": str(error), "outcome": "replaced"})
        raise DataError(
            f"{self._key}: {_MAX_REPLACEMENTS} samples in a row cannot be used; the last reason: {problems[-1]['reason']}. {_INSPECT}"
        )


class TrainingSet(Dataset[tuple[Batch, RegionBatch | None]]):
    """Item ``step`` is this rank's share of the step's global batch and, in every n-th step, of a region batch.

    Args:
        pairs: the stream of image-text pairs, or None where they come from elsewhere.
        regions: the stream of region images, or None.
        tokenizer: turns captions into tokens.
        image_size_px: height and width.
        patch_grid: rows and columns of the patch labels.
        global_batch_size, region_batch_size: images per step over all ranks.
        rank, world_size: which share of a batch is this rank's.
        region_every_n_steps: every n-th step has a region batch.
        max_phrases: the most phrases of a region image in one step.
        phrase_template: how a phrase becomes a caption.
        min_cover: see :func:`timix_pl.data.sets.patch_labels.patch_labels`.
        negative_frac: the share of another image's phrases that are added to an image, with labels of 0.
        caption_positive: add an image's caption, with labels of 1.
    """

    def __init__(
        self,
        pairs: SampleStream | None,
        regions: SampleStream | None,
        tokenizer: Callable[[list[str]], Tensor],
        *,
        image_size_px: tuple[int, int],
        patch_grid: tuple[int, int],
        global_batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        region_batch_size: int = 0,
        region_every_n_steps: int = 1,
        augmentation: Augmentation = Augmentation(),  # noqa: B008
        max_phrases: int = 8,
        phrase_template: str = "{}",
        min_cover: float = 0.0,
        negative_frac: float = 0.0,
        caption_positive: bool = False,
        max_image_px: int = 100_000_000,
    ):
        self.pairs, self.regions, self.tokenizer = pairs, regions, tokenizer
        self.global_batch_size, self.region_batch_size, self.region_every_n_steps = (
            global_batch_size,
            region_batch_size,
            region_every_n_steps,
        )
        self._images = TrainingImages(image_size_px, patch_grid, augmentation, seed=seed, max_image_px=max_image_px)
        self._grid, self._seed, self.rank, self._world_size = patch_grid, seed, rank, world_size
        self._max_phrases, self._template = max_phrases, phrase_template
        self._min_cover, self._negative_frac, self._caption_positive = min_cover, negative_frac, caption_positive

    def __getitem__(self, step: int) -> tuple[Batch, RegionBatch | None]:
        assert self.pairs is not None
        problems: list[dict[str, Any]] = []
        start = step * self.global_batch_size + self.rank * self.batch_size
        return self.assemble(step, self.pairs.load(start, self.batch_size, self.use_pair, problems), problems)

    @property
    def batch_size(self) -> int:
        """Pairs of this rank in a step."""
        return self.global_batch_size // self._world_size

    def assemble(
        self, step: int, pairs: Sequence[tuple[NDArray[np.uint8], str, str, str]], problems: list[dict[str, Any]]
    ) -> tuple[Batch, RegionBatch | None]:
        """The item of a step, from pairs that :meth:`use_pair` returned."""
        images, captions, keys, shards = zip(*pairs, strict=True)
        region_batch = self._region_batch(step, problems)
        first = self.rank * self.batch_size
        return Batch(stack(images), self.tokenizer(list(captions)), list(keys), list(captions), first, problems, shards), region_batch

    def use_pair(self, sample: Sample, ids: tuple[int, int]) -> tuple[NDArray[np.uint8], str, str, str]:
        """The augmented image, one of the captions, the key, and the shard's file name.

        Args:
            ids: name the random draws.
        Raises:
            BadSampleError: the sample cannot be used.
        """
        if not sample.captions:
            raise BadSampleError("the sample has no caption")
        image = self._images.open(sample)
        crop = self._images.random_crop(image, "pairs", *ids)
        caption = sample.captions[seed_of("caption", self._seed, *ids) % len(sample.captions)]
        return self._images.cropped(image, crop, "pairs", *ids), caption, sample.key, sample.shard

    def _region_batch(self, step: int, problems: list[dict[str, Any]]) -> RegionBatch | None:
        if self.regions is None or step % self.region_every_n_steps:
            return None
        batch_size = self.region_batch_size // self._world_size
        start = step // self.region_every_n_steps * self.region_batch_size
        first = self.rank * batch_size
        notes: list[dict[str, Any]] = []
        rows = self.regions.load(start + first, batch_size, lambda sample, ids: self._use_regions(sample, ids, notes), problems)
        problems.extend(notes)
        images, described, held, captions, keys, shards = zip(*rows, strict=True)
        phrases = [phrase for found in described for phrase in found]
        labels = torch.stack([patch_labels(boxes, self._grid, self._min_cover).amax(0) for found in described for boxes in found.values()])
        image_index = torch.repeat_interleave(torch.arange(batch_size), torch.tensor([len(found) for found in described]))
        if self._negative_frac:
            before = rows[-1]  # with one rank, the image before the first is the last
            if batch_size < self.region_batch_size:
                position = start + (first - 1) % self.region_batch_size
                (before,) = self.regions.load(position, 1, lambda sample, ids: self._use_regions(sample, ids, []), [])
            negatives = self._negatives([list(before[1]), *map(list, described[:-1])], held, step, first)
            phrases += [phrase for phrase, _ in negatives]
            image_index = torch.cat((image_index, torch.tensor([image for _, image in negatives], dtype=torch.long)))
            labels = torch.cat((labels, labels.new_zeros(len(negatives), labels.shape[1])))
        phrases = [self._template.replace("{}", phrase) for phrase in phrases]
        if self._caption_positive:
            captioned = [number for number, caption in enumerate(captions) if caption]
            phrases += [captions[number] for number in captioned]
            image_index = torch.cat((image_index, torch.tensor(captioned, dtype=torch.long)))
            labels = torch.cat((labels, labels.new_ones(len(captioned), labels.shape[1])))
        return RegionBatch(stack(images), self.tokenizer(phrases), image_index, labels, list(keys), shards)

    def _use_regions(
        self, sample: Sample, ids: tuple[int, int], notes: list[dict[str, Any]]
    ) -> tuple[NDArray[np.uint8], dict[str, Tensor], set[str], str | None, str, str]:
        """The augmented image, the boxes of the drawn phrases, all phrases of the image, one of its captions, its key and its shard."""
        usable, num_unusable = usable_regions(sample.regions)
        if not usable:
            raise BadSampleError("the sample has no region with a phrase and a box inside the image, given as shares of its sides (0 to 1)")
        if num_unusable:
            assert self.regions is not None
            reason = f"{counted(num_unusable, 'region')} left out: no phrase, outside the image, or in pixels"
            folder = self.regions.reader.folder(ids[1])
            where = {"stream": "data.region_shards", "folder": folder, "shard": sample.shard, "key": sample.key}
            notes.append(where | {"reason": reason, "outcome": "used in part"})
        image = self._images.open(sample)
        for attempt in range(_MAX_REGION_CROPS):
            crop = self._images.random_crop(image, "regions", attempt, *ids)
            if found := crop_regions(usable, crop):
                break
        else:
            crop, found = Crop(0.0, 0.0, 1.0, 1.0), usable
        boxes = boxes_by_phrase(found)
        phrases = list(boxes)
        chosen = sorted(permutation(len(phrases), "phrases", self._seed, *ids)[: self._max_phrases])
        caption = sample.captions[seed_of("caption", self._seed, *ids) % len(sample.captions)] if sample.captions else None
        drawn = {phrases[number]: boxes[phrases[number]] for number in chosen}
        cropped = self._images.cropped(image, crop, "regions", *ids)
        return cropped, drawn, {region.phrase for region in usable}, caption, sample.key, sample.shard

    def _negatives(self, candidates: Sequence[list[str]], held: Sequence[set[str]], step: int, first: int) -> list[tuple[str, int]]:
        """Phrases, and the image of this rank to which each is added. An image gets no phrase that it has itself.

        Args:
            candidates: for each image, the phrases of the image before it in the global batch.
            held: all phrases of each image.
            first: position of image 0 in the global batch.
        """
        added = []
        for image, phrases in enumerate(candidates):
            drawn = uniform(len(phrases), "negatives", self._seed, step, first + image) < self._negative_frac
            added += [(phrase, image) for phrase, taken in zip(phrases, drawn, strict=True) if taken and phrase not in held[image]]
        return added
