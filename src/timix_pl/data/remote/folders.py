"""Which shards people mean by URLs: tars, folders and patterns in object stores and on web servers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import obstore

from timix_pl.core.errors import DataError
from timix_pl.data.remote.prefetch import in_parallel
from timix_pl.data.remote.remote_tar import RemoteAccess, RemoteTar, RemoteTars
from timix_pl.data.remote.transport import get_optional, is_web, locate, retried
from timix_pl.data.shards.index import ShardFacts
from timix_pl.data.shards.manifest import MANIFEST_NAME, UNFINISHED_NAME, parse_manifest

SCHEMES = ("s3", "gs", "https", "http")

Listed = dict[str, ShardFacts]
"""What a manifest says of each shard, by name."""


def find_remote_tars(urls: Sequence[str], key: str, access: RemoteAccess) -> RemoteTars:
    """The tars at some URLs: tars, folders, and (but for web servers, which cannot list) patterns.

    Raises:
        DataError: a URL is of no known kind, nothing is there, a folder is unfinished or differs from its manifest, or a source cannot be
            reached.
    """
    for url in urls:
        _check_url(url, key)
    manifests = lru_cache(None)(lambda folder, optional=False: _read_manifest(folder, key, optional))
    found: list[RemoteTar | str] = []
    for url in urls:
        folder, _, name = url.rpartition("/")
        if not name.endswith(".tar") and not _is_pattern(name):
            folder, name = url.rstrip("/"), ""
        if name and not _is_pattern(name):
            found.append(_with_facts(url, key, access, manifests(folder, True)) or url)
        elif is_web(url):
            found += _of_web_folder(url, folder, name, key, access, manifests)
        else:
            found += _of_folder(url, folder, name, key, access, manifests)

    def ask(shard: RemoteTar | str) -> RemoteTar:
        if isinstance(shard, RemoteTar):
            return shard
        meta = retried(lambda: obstore.head(*locate(shard)), shard, key)
        return _from_meta(shard, key, access, meta)

    return RemoteTars(in_parallel(ask, found))


def _check_url(url: str, key: str) -> None:
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        raise DataError(f"{key}: {url}: shards can be read from {', '.join(f'{name}://' for name in SCHEMES)}, file:// and local paths.")
    if not rest.partition("/")[0]:
        raise DataError(f"{key}: {url} names no host or bucket.")
    if is_web(url) and ("?" in rest or "#" in rest):
        raise DataError(
            f"{key}: {url}: addresses with '?' or '#' (such as signed ones) cannot be read. Use s3:// or gs:// with credentials."
        )


def _is_pattern(name: str) -> bool:
    return any(mark in name for mark in "*?[")


def _read_manifest(folder: str, key: str, optional: bool = False) -> Listed | None:
    """The shards that the manifest of a folder lists. ``optional``: shards are named without it, so one that is denied is none."""
    content = get_optional(f"{folder}/{MANIFEST_NAME}", key, denied_is_absent=optional)
    if content is None:
        return None
    try:
        return dict(parse_manifest(content).rows())
    except ValueError as error:
        raise DataError(
            f"{key}: {folder}/{MANIFEST_NAME} is damaged ({error}). Make it again with 'timix-data index' and upload it."
        ) from error


def _with_facts(url: str, key: str, access: RemoteAccess, listed: Listed | None) -> RemoteTar | None:
    """The shard at a URL as far as a manifest tells all about it."""
    facts = (listed or {}).get(url.rpartition("/")[2])
    if facts is None or not facts.digest:
        return None
    return RemoteTar(url, key, access, facts.num_bytes, facts.digest, None, facts.num_samples, facts.digest)


def _from_meta(url: str, key: str, access: RemoteAccess, meta: Any) -> RemoteTar:
    etag = None if is_web(url) else meta["e_tag"]
    return RemoteTar(url, key, access, meta["size"], meta["e_tag"] or meta["last_modified"].isoformat(), etag)


def _of_web_folder(
    url: str, folder: str, name: str, key: str, access: RemoteAccess, manifests: Callable[[str], Listed | None]
) -> list[RemoteTar | str]:
    listed = manifests(folder)
    if name or listed is None:
        raise DataError(
            f"{key}: {url}: web servers cannot list a folder{'' if name else f', and there is no {MANIFEST_NAME} in it'}. "
            f"Name the shards, as in {folder}/shard-{{000000..000099}}.tar, "
            f"or upload the {MANIFEST_NAME} that 'timix-data index' writes, and give the folder."
        )
    urls = [f"{folder}/{name}" for name in sorted(listed)]
    return [_with_facts(found, key, access, listed) or found for found in urls]


def _of_folder(
    url: str, folder: str, pattern: str, key: str, access: RemoteAccess, manifests: Callable[[str], Listed | None]
) -> list[RemoteTar | str]:
    if _is_pattern(folder):
        raise DataError(f"{key}: {url}: of a remote pattern only the last part may have '*', '?' or '['.")
    store, prefix = locate(folder)
    objects = retried(lambda: obstore.list_with_delimiter(store, prefix or None)["objects"], folder, key)
    metas = {meta["path"].rpartition("/")[2]: meta for meta in objects}
    names = sorted(name for name in metas if (fnmatchcase(name, pattern) if pattern else name.endswith(".tar")))
    if not pattern and UNFINISHED_NAME in metas:
        raise DataError(f"{key}: {url}: writing the shards of this folder has not finished. Wait for it, or write them again.")
    listed = manifests(folder) if MANIFEST_NAME in metas else None
    if not pattern and listed is not None and (differing := sorted(set(listed) ^ set(names))):
        state = "is not listed" if differing[0] in names else "is missing"
        raise DataError(
            f"{key}: {url} differs from its {MANIFEST_NAME}: {differing[0]} {state}, {len(differing)} in all. "
            f"Restore the shards, or make {MANIFEST_NAME} again with 'timix-data index' and upload it."
        )
    if not names:
        raise DataError(f"{key}: {url}: no {'such' if pattern else '.tar'} files there.")
    shards = []
    for name in names:
        shard = _from_meta(f"{folder}/{name}", key, access, metas[name])
        facts = _with_facts(shard.url, key, access, listed)
        if facts is not None:
            if facts.num_bytes != shard.num_bytes:
                raise DataError(
                    f"{key}: {shard.url} has {shard.num_bytes} bytes, and {facts.num_bytes} by its {MANIFEST_NAME}. {shard._advice}"
                )
            shard = replace(shard, num_samples=facts.num_samples, digest=facts.digest)
        shards.append(shard)
    return list(shards)
