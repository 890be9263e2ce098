"""Writes samples to webdataset tar shards, with indexes and a manifest."""

import io
import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from timix_pl.core.errors import DataError
from timix_pl.core.sample import Region
from timix_pl.data.shards.index import index_shard
from timix_pl.data.shards.local_tar import write_manifest
from timix_pl.data.shards.manifest import MANIFEST_NAME, UNFINISHED_NAME
from timix_pl.data.shards.tar_scan import IMAGE_EXTS


class ShardWriter:
    """Writes samples to ``FOLDER/shard-000000.tar`` and so on. The same samples give the same bytes.

    Use it as a context manager. A shard gets its name when it is whole, and then its index. ``manifest.json`` is written last. Readers
    refuse a folder whose writing has not finished.

    Args:
        folder: made if it is missing.
        samples_per_shard: samples in each shard except the last.
        overwrite: replace the shards that the folder has.
    Raises:
        DataError: the folder already has shards, or ``samples_per_shard`` is not positive.
    """

    def __init__(self, folder: Path | str, *, samples_per_shard: int = 1000, overwrite: bool = False):
        if samples_per_shard < 1:
            raise DataError(f"samples_per_shard={samples_per_shard} must be at least 1.")
        self.folder = Path(folder)
        self.samples_per_shard = samples_per_shard
        self.num_samples = 0
        self._keys: set[str] = set()
        self._tar: tarfile.TarFile | None = None
        self._prepare_folder(overwrite)

    def _prepare_folder(self, overwrite: bool) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        shards = sorted(self.folder.glob("*.tar"))
        in_the_way = [path for path in shards if not (overwrite and path.match("shard-*.tar"))]
        if in_the_way:
            raise DataError(f"{self.folder}: the folder already has {in_the_way[0].name}. Give another folder, or --overwrite.")
        (self.folder / UNFINISHED_NAME).touch()
        for path in [*self.folder.glob("shard-*.tar*"), self.folder / MANIFEST_NAME]:
            path.unlink(missing_ok=True)

    def write(
        self,
        key: str,
        image: bytes,
        image_ext: str,
        *,
        captions: Sequence[str] = (),
        regions: Sequence[Region] = (),
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Add one sample.

        Args:
            key: its name in the shards; characters other than letters, digits, ``_`` and ``-`` become ``_``.
            image: an encoded image, written as it is.
            image_ext: jpg, jpeg, png or webp.
            captions: all go to ``KEY.json``; the first also goes to ``KEY.txt``.
            regions: phrases and their boxes, inside the image.
            extra: further fields of ``KEY.json``.
        Raises:
            DataError: an empty or repeated key, no image, another extension, a box that is empty or outside the image, or a field in
                ``extra`` that the format uses itself.
        """
        name = self._new_key(key)
        ext = image_ext.lower().lstrip(".")
        fields = {"captions": list(captions), "regions": [_region_to_json(name, region) for region in regions]}
        if not image or ext not in IMAGE_EXTS:
            raise DataError(f"{key}: {len(image)} bytes of image_ext={image_ext!r}; an image must be one of {', '.join(IMAGE_EXTS)}.")
        if clash := fields.keys() & (extra or {}).keys():
            raise DataError(f"{key}: extra must not have {', '.join(sorted(clash))}. Give it as its own argument.")
        tar = self._open_shard()
        _add_member(tar, f"{name}.{'jpg' if ext == 'jpeg' else ext}", image)
        if captions:
            _add_member(tar, f"{name}.txt", captions[0].encode())
        _add_member(tar, f"{name}.json", json.dumps(fields | dict(extra or {}), ensure_ascii=False).encode())
        self._keys.add(name)
        self.num_samples += 1
        if self.num_samples % self.samples_per_shard == 0:
            self._close_shard()

    def close(self) -> None:
        """Finish the last shard and write the manifest.

        Raises:
            DataError: no sample was written.
        """
        self._close_shard()
        if self.num_samples == 0:
            raise DataError(f"{self.folder}: no sample was written, so there are no shards.")
        write_manifest(self.folder)
        (self.folder / UNFINISHED_NAME).unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        elif self._tar is not None:
            self._tar.close()
            self._temporary_path().unlink()

    def _new_key(self, key: str) -> str:
        name = re.sub(r"[^\w-]", "_", key)
        if not name.strip("_"):
            raise DataError(f"key={key!r} has no letter or digit.")
        if name in self._keys:
            raise DataError(f"key={key!r} (written as {name}) is repeated; keys must differ.")
        return name

    def _shard_path(self) -> Path:
        return self.folder / f"shard-{(self.num_samples - 1) // self.samples_per_shard:06d}.tar"

    def _temporary_path(self) -> Path:
        return self.folder / "current.tar.tmp"

    def _open_shard(self) -> tarfile.TarFile:
        if self._tar is None:
            self._tar = tarfile.open(self._temporary_path(), "w")  # noqa: SIM115 (stays open over many calls)
        return self._tar

    def _close_shard(self) -> None:
        if self._tar is None:
            return
        self._tar.close()
        self._tar = None
        self._temporary_path().rename(self._shard_path())
        index_shard(self._shard_path())


def _region_to_json(key: str, region: Region) -> dict[str, Any]:
    x0, y0, x1, y1 = region.bbox_xyxy_norm
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise DataError(f"{key}: the box {region.bbox_xyxy_norm} of {region.phrase!r} must have 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1.")
    return {"phrase": region.phrase, "bbox_xyxy_norm": list(region.bbox_xyxy_norm)}


def _add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
