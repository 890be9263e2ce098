"""The batch of a pre-training step: image-text pairs, and region images. The workers of the loader run this."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from timix_pl.core.randomness import permutation, seed_of, uniform
from timix_pl.core.sample import Sample
from timix_pl.core.types import PairBatch, RegionBatch
from timix_pl.core.words import counted
from timix_pl.data.images.augment import Crop, crop_regions, usable_regions
from timix_pl.data.images.training_images import stack
from timix_pl.data.sets.patch_labels import boxes_by_phrase, patch_labels
from timix_pl.data.sets.sample_stream import SampleStream
from timix_pl.data.sets.step_set import StepSet
from timix_pl.data.shards.reader import BadSampleError

_MAX_REGION_CROPS = 4


class PairSet(StepSet):
    """Item ``step`` is this rank's share of the step's global batch and, in every n-th step, of a region batch.

    Args:
        pairs: the stream of image-text pairs, or None where they come from elsewhere.
        regions: the stream of region images, or None.
        tokenizer: turns captions into tokens.
        region_batch_size: region images per step over all ranks.
        region_every_n_steps: every n-th step has a region batch.
        max_phrases: the most phrases of a region image in one step.
        phrase_template: how a phrase becomes a caption.
        min_cover: see :func:`timix_pl.data.sets.patch_labels.patch_labels`.
        negative_frac: the share of another image's phrases that are added to an image, with labels of 0.
        caption_positive: add an image's caption, with labels of 1.
        options: see :class:`timix_pl.data.sets.step_set.StepSet`.
    """

    def __init__(
        self,
        pairs: SampleStream | None,
        regions: SampleStream | None,
        tokenizer: Callable[[list[str]], Tensor],
        *,
        region_batch_size: int = 0,
        region_every_n_steps: int = 1,
        max_phrases: int = 8,
        phrase_template: str = "{}",
        min_cover: float = 0.0,
        negative_frac: float = 0.0,
        caption_positive: bool = False,
        **options: Any,
    ):
        super().__init__(**options)
        self.pairs, self.regions, self.tokenizer = pairs, regions, tokenizer
        self.region_batch_size, self.region_every_n_steps = region_batch_size, region_every_n_steps
        self._max_phrases, self._template = max_phrases, phrase_template
        self._min_cover, self._negative_frac, self._caption_positive = min_cover, negative_frac, caption_positive

    def __getitem__(self, step: int) -> PairBatch:
        assert self.pairs is not None
        problems: list[dict[str, Any]] = []
        start = step * self.global_batch_size + self.first
        return self.assemble(step, self.pairs.load(start, self.batch_size, self.use_pair, problems), problems)

    def assemble(self, step: int, pairs: Sequence[tuple[NDArray[np.uint8], str, str, str]], problems: list[dict[str, Any]]) -> PairBatch:
        """The item of a step, from pairs that :meth:`use_pair` returned."""
        images, captions, keys, shards = zip(*pairs, strict=True)
        return PairBatch(
            images=stack(images),
            tokens=self.tokenizer(list(captions)),
            captions=list(captions),
            keys=list(keys),
            first=self.first,
            regions=self._region_batch(step, problems),
            problems=problems,
            shards=shards,
        )

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
        return RegionBatch(
            images=stack(images),
            tokens=self.tokenizer(phrases),
            image_index=image_index,
            patch_labels=labels,
            keys=list(keys),
            shards=shards,
        )

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
            where = {"stream": self.regions.key, "folder": folder, "shard": sample.shard, "key": sample.key}
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
