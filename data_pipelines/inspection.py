"""Inspect shards: counts from their indexes, and statistics of samples that are spread evenly over them."""

import base64
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from timix_pl.core.errors import DataError, in_keys
from timix_pl.core.sample import Region, Sample
from timix_pl.core.words import counted
from timix_pl.data.images.augment import usable_regions
from timix_pl.data.images.decode import check_size, open_image
from timix_pl.data.shards.index import load_facts
from timix_pl.data.shards.manifest import Manifest
from timix_pl.data.shards.reader import BadSampleError, ShardReader
from timix_pl.data.shards.sources import resolve_shards

QUANTILES = {"min": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "max": 1.0}

_MAX_IMAGE_PX = 100_000_000
_TRAINING = {"max_image_mb": "data.max_image_mb", "max_image_px": "data.max_image_px"}
"""The keys of timix-train with these limits."""
_MAX_PICTURES = 60
_MAX_REGIONS_DRAWN = 20
_MAX_EXAMPLES = 3
_MAX_SHARDS_WITH_PROBLEMS = 1000
_THUMBNAIL_PX = 480
_NUM_BINS = 30


@dataclass(frozen=True)
class Picture:
    """A sample to show. ``uri``: its image as a data URI; empty if there is none, then ``problem`` says why."""

    key: str
    shard: str
    uri: str
    size_px: tuple[int, int]
    captions: tuple[str, ...]
    regions: tuple[Region, ...]
    num_regions_left_out: int
    problem: str


@dataclass
class Problems:
    """The count of each reason, with the first few places."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, where: str) -> None:
        """Count a problem. Reasons that differ only in their numbers count as one."""
        kind = re.sub(r"(?<![\w-])\d[\d.]*", "N", reason)
        self.counts[kind] += 1
        if len(examples := self.examples.setdefault(kind, [])) < _MAX_EXAMPLES:
            examples.append(where)


@dataclass
class Inspection:
    """The result of an inspection. ``values``: by measure, one number for each sample, caption or image."""

    name: str
    num_shards: int
    num_samples: int
    num_bytes: int
    num_looked_at: int = 0
    num_with_captions: int = 0
    num_with_regions: int = 0  # samples with at least one region that training can use
    formats: Counter[str] = field(default_factory=Counter)
    values: dict[str, list[float]] = field(default_factory=dict)
    bad_samples: Problems = field(default_factory=Problems)
    bad_regions: Problems = field(default_factory=Problems)
    left_out: Problems = field(default_factory=Problems)
    num_left_out: int = 0
    pictures: list[Picture] = field(default_factory=list)

    def quantiles(self) -> dict[str, list[float]]:
        """For each measure, the values at ``QUANTILES``, without interpolation."""
        return {what: np.quantile(values, list(QUANTILES.values()), method="inverted_cdf").tolist() for what, values in self.values.items()}

    def histograms(self) -> dict[str, list[float]]:
        """For each measure, a histogram between its 1% and 99% quantiles with at most 30 equal bins, relative to the highest bin."""
        found = {}
        for what, values in self.values.items():
            low, high = np.floor(np.quantile(values, [0.01, 0.99], method="inverted_cdf"))
            step = -(-(high - low + 1) // _NUM_BINS)  # a whole number, so that every bin covers the same number of integers
            counts, _ = np.histogram(values, low + step * np.arange((high - low) // step + 2))
            found[what] = (counts / max(counts.max(), 1)).tolist()
        return found


def inspect_shards(specs: Sequence[str], *, num_samples: int, with_pictures: bool) -> Inspection:
    """Inspect shards. Missing indexes are written. Of the images, only the headers are decoded.

    Args:
        specs: folders, tars or patterns.
        num_samples: number of samples to inspect.
        with_pictures: also decode some images, to show them.
    Raises:
        DataError: a path is missing, a tar is broken, or there is no sample.
    """
    if urls := [spec for spec in specs if "://" in spec and not spec.startswith("file:")]:
        raise DataError(f"{urls[0]}: remote shards cannot be looked at. Run this where they are local, or copy a few of them.")
    manifests = [source.tars.manifest() for source in resolve_shards(list(specs), "SHARDS")]
    reader = ShardReader(manifests)
    found = Inspection(
        ", ".join(specs),
        sum(len(manifest.shards) for manifest in manifests),
        len(reader),
        sum(int(manifest.shards.num_bytes.sum()) for manifest in manifests),
    )
    _gather_left_out(manifests, found)
    numbers = _spread(len(reader), num_samples)
    shown = {numbers[place] for place in _spread(len(numbers), _MAX_PICTURES)} if with_pictures else set()
    for number in numbers:
        _look_at(reader, number, found, show=number in shown)
    return found


def _spread(count: int, wanted: int) -> list[int]:
    """``wanted`` numbers below ``count``, evenly spread; all of them if there are fewer."""
    wanted = min(wanted, count)
    return [(2 * i + 1) * count // (2 * wanted) for i in range(wanted)]


def _gather_left_out(manifests: Sequence[Manifest], found: Inspection) -> None:
    for manifest in manifests:
        found.num_left_out += int(manifest.shards.num_problems.sum())
        for row in np.flatnonzero(manifest.shards.num_problems)[:_MAX_SHARDS_WITH_PROBLEMS].tolist():
            tar = manifest.tars[row]
            for problem in load_facts(Path(tar.location))[1]:
                name, _, reason = problem.rpartition(": ")
                found.left_out.add(reason, f"{tar.name}: {name}")


def _look_at(reader: ShardReader, number: int, found: Inspection, *, show: bool) -> None:
    found.num_looked_at += 1
    where = ": ".join(reader.name(number))
    try:
        with in_keys(_TRAINING):
            sample = reader[number]
            size_px = _read_header(sample, found)
    except BadSampleError as error:
        found.bad_samples.add(str(error), where)
        if show:
            shard, key = reader.name(number)
            found.pictures.append(Picture(key, shard, "", (0, 0), (), (), 0, str(error)))
        return
    unusable = [region for region in sample.regions if usable_regions([region])[1]]
    for region in unusable:
        reason = "box empty, outside the image, or in pixels" if region.phrase.strip() else "empty phrase"
        found.bad_regions.add(reason, where)
    found.num_with_captions += bool(sample.captions)
    found.num_with_regions += len(unusable) < len(sample.regions)
    _note(found, "image width, px", size_px[0])
    _note(found, "image height, px", size_px[1])
    _note(found, "image size, kB", len(sample.image) / 1e3)
    _note(found, "captions per sample", len(sample.captions))
    _note(found, "words per caption", *(len(caption.split()) for caption in sample.captions))
    _note(found, "characters per caption", *map(len, sample.captions))
    _note(found, "regions per sample", len(sample.regions))
    if not sample.captions and len(unusable) == len(sample.regions):
        found.bad_samples.add("no caption and no usable region", where)
    if show:
        found.pictures.append(_picture(sample, size_px, found, where))


def _read_header(sample: Sample, found: Inspection) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(sample.image)) as image:
            check_size(image.size, _MAX_IMAGE_PX)
            found.formats[image.format or ""] += 1
            return image.size
    except UnidentifiedImageError:
        raise BadSampleError("the image has no known format") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise BadSampleError(f"the image cannot be decoded: {error}") from error


def _note(found: Inspection, what: str, *values: float) -> None:
    if values:
        found.values.setdefault(what, []).extend(values)


def _picture(sample: Sample, size_px: tuple[int, int], found: Inspection, where: str) -> Picture:
    uri = problem = ""
    try:
        with in_keys(_TRAINING):
            image = open_image(sample.image, max_image_px=_MAX_IMAGE_PX)
        full_px = image.size  # size of the upright image, to which boxes refer
        image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=82)
        uri, size_px = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}", full_px
    except BadSampleError as error:
        problem = str(error)
        found.bad_samples.add(problem, where)
    regions = sample.regions[:_MAX_REGIONS_DRAWN]
    return Picture(sample.key, sample.shard, uri, size_px, sample.captions, regions, len(sample.regions) - len(regions), problem)


def lines(found: Inspection) -> list[str]:
    """The result as lines of text for a terminal."""
    head = f"{found.name}: {counted(found.num_samples, 'sample')} in {counted(found.num_shards, 'shard')}, {found.num_bytes / 1e9:,.3f} GB"
    return [head, f"looked at {scope(found)}", "", *_shares(found), *_table(found), *_problems(found)]


def scope(found: Inspection) -> str:
    """The samples that the figures describe, in words."""
    if found.num_looked_at == found.num_samples:
        return f"all {found.num_samples:,} samples; of images, only the headers"
    return f"{counted(found.num_looked_at, 'sample')}, spread evenly (--samples takes more); of images, only the headers"


def shares(found: Inspection) -> list[tuple[str, str]]:
    """Labels, and shares of the inspected samples."""
    return [
        ("format", ", ".join(f"{name} {count / found.num_looked_at:.1%}" for name, count in found.formats.most_common()) or "none known"),
        ("with captions", f"{found.num_with_captions / found.num_looked_at:.1%}"),
        ("with regions", f"{found.num_with_regions / found.num_looked_at:.1%}"),
        ("cannot be used", f"{found.bad_samples.counts.total() / found.num_looked_at:.1%}"),
    ]


def number_text(value: float) -> str:
    """1234.0 is 1,234; 12.34 is 12.3."""
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:,.1f}"


def problem_tables(found: Inspection) -> list[tuple[str, Problems]]:
    """The kinds of problems that occur, each with a title."""
    seen = found.left_out.counts.total()
    more = "" if seen == found.num_left_out else f"; reasons of the first {seen:,}"
    tables = [
        (f"{found.bad_samples.counts.total():,} of the samples looked at cannot be used", found.bad_samples),
        (f"{counted(found.bad_regions.counts.total(), 'region')} of the samples looked at cannot be used", found.bad_regions),
        (f"{found.num_left_out:,} things in all shards that the indexes leave out{more}", found.left_out),
    ]
    return [(title, problems) for title, problems in tables if problems.counts]


def _shares(found: Inspection) -> list[str]:
    return [f"{label:<24}{text}" for label, text in shares(found)]


def _table(found: Inspection) -> list[str]:
    rows = [f"{what:<24}" + "".join(f"{number_text(value):>10}" for value in values) for what, values in found.quantiles().items()]
    return ["", " " * 24 + "".join(f"{name:>10}" for name in QUANTILES), *rows] if rows else []


def _problems(found: Inspection) -> list[str]:
    told = []
    for title, problems in problem_tables(found):
        told += ["", f"{title}:"]
        for reason, count in problems.counts.most_common():
            told.append(f"{count:>8,}  {reason} (such as {'; '.join(problems.examples[reason])})")
    return told or ["", "no problems"]
