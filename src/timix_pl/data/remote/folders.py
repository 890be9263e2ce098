"""From URLs to the tars that they name: tars, folders and patterns in object stores and on web servers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import obstore

from timix_pl.core.errors import DataError
from timix_pl.data.remote.prefetch import in_parallel
from timix_pl.data.remote.remote_tar import CHANGED, RemoteAccess, RemoteTar, RemoteTars
from timix_pl.data.remote.transport import get_optional, is_web, locate, retried
from timix_pl.data.shards.index import ShardFacts
from timix_pl.data.shards.manifest import MANIFEST_NAME, UNFINISHED_NAME, parse_manifest

SCHEMES = ("s3", "gs", "https", "http")

Listed = dict[str, ShardFacts]
"""What a manifest says of each tar, by name."""

_Found = tuple[str, RemoteTar | None]
"""A URL, and the tar there if all about it is known; else the server must be asked."""


def find_remote_tars(urls: Sequence[str], key: str, access: RemoteAccess) -> RemoteTars:
    """The tars that URLs name. Each is a tar, a folder, or a pattern; web servers cannot list files, so they have no patterns.

    Raises:
        DataError: a URL is of no known kind, nothing is there, a folder is unfinished or differs from its manifest, or a source cannot be
            reached.
    """
    for url in urls:
        _check_url(url, key)
    manifests = lru_cache(None)(lambda folder, optional=False: _read_manifest(folder, key, optional))
    found: list[_Found] = []
    for url in urls:
        folder, _, name = url.rpartition("/")
        if not name.endswith(".tar") and not _is_pattern(name):
            folder, name = url.rstrip("/"), ""
        if name and not _is_pattern(name):
            found.append((url, _with_facts(url, key, access, manifests(folder, True))))
        elif is_web(url):
            found += _of_web_folder(url, folder, name, key, access, manifests)
        else:
            found += _of_folder(url, folder, name, key, access, manifests)

    def complete(one: _Found) -> RemoteTar:
        url, tar = one
        return tar or _from_meta(url, key, access, retried(lambda: obstore.head(*locate(url)), url, key))

    return RemoteTars(in_parallel(complete, found))


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
    """The tars that a folder's manifest lists. ``optional``: the user named the tars, so access to it may be denied."""
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
    """The tar at a URL, or None where the manifest does not say all about it."""
    facts = (listed or {}).get(url.rpartition("/")[2])
    if facts is None or not facts.digest:
        return None
    return RemoteTar(url, key, access, facts.num_bytes, facts.digest, None, facts.num_samples, facts.digest)


def _from_meta(url: str, key: str, access: RemoteAccess, meta: Any) -> RemoteTar:
    etag = None if is_web(url) else meta["e_tag"]
    return RemoteTar(url, key, access, meta["size"], meta["e_tag"] or meta["last_modified"].isoformat(), etag)


def _of_web_folder(
    url: str, folder: str, name: str, key: str, access: RemoteAccess, manifests: Callable[[str], Listed | None]
) -> list[_Found]:
    listed = manifests(folder)
    if name or listed is None:
        raise DataError(
            f"{key}: {url}: web servers cannot list a folder{'' if name else f', and there is no {MANIFEST_NAME} in it'}. "
            f"Name the shards, as in {folder}/shard-{{000000..000099}}.tar, "
            f"or upload the {MANIFEST_NAME} that 'timix-data index' writes, and give the folder."
        )
    urls = [f"{folder}/{name}" for name in sorted(listed)]
    return [(found, _with_facts(found, key, access, listed)) for found in urls]


def _of_folder(
    url: str, folder: str, pattern: str, key: str, access: RemoteAccess, manifests: Callable[[str], Listed | None]
) -> list[_Found]:
    if _is_pattern(folder):
        raise DataError(f"{key}: {url}: only the last part of a remote pattern may have '*', '?' or '['.")
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
    found: list[_Found] = []
    for name in names:
        tar = _from_meta(f"{folder}/{name}", key, access, metas[name])
        if known := _with_facts(tar.url, key, access, listed):
            if known.num_bytes != tar.num_bytes:
                raise DataError(f"{key}: {tar.url} has {tar.num_bytes} bytes, and {known.num_bytes} by its {MANIFEST_NAME}. {CHANGED}")
            tar = replace(tar, num_samples=known.num_samples, digest=known.digest)
        found.append((tar.url, tar))
    return found
