"""Requests to object stores and web servers, tried again after failures that may pass.

Credentials and endpoints come from the environment, as ``obstore`` reads it.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotSupportedError, PermissionDeniedError, UnauthenticatedError
from obstore.store import GCSStore, HTTPStore, ObjectStore, S3Store

from timix_pl.core.errors import DataError

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_RETRY_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0)
_STALL_S = 20
_PERMANENT_STATUS = re.compile(r"status code: 4(?!08|29)\d\d")
_CREDENTIAL_SERVICES = ("169.254.169.254", "metadata.google.internal")
_used = False
_forked_after_use = False


class ShortBodyError(Exception):
    """A body that ended early."""


def retried(
    act: Callable[[], Result],
    url: str,
    key: str,
    progress: Callable[[], int] = lambda: 0,
    pauses_s: Sequence[float] | None = None,
) -> Result:
    """The result of ``act()``, tried again after longer and longer pauses. The count of tries starts again when ``progress`` has grown."""
    schedule = _RETRY_PAUSES_S if pauses_s is None else pauses_s
    left, reached = list(schedule), progress()
    while True:
        try:
            return act()
        except NotSupportedError:
            raise
        except FileNotFoundError as error:
            raise MissingError(f"{key}: there is no {url}. Restore it, or leave it out.") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise ForbiddenError(
                f"{key}: {url}: access is denied ({_said(error)}). Credentials come from the environment; docs/remote_shards.md says which."
            ) from error
        except (BaseError, ValueError, ShortBodyError) as error:
            if isinstance(error, ValueError) or _PERMANENT_STATUS.search(str(error)):
                raise DataError(f"{key}: {url} cannot be read: {_said(error)}") from error
            if progress() > reached:
                left, reached = list(schedule), progress()
            if not left:
                raise DataError(
                    f"{key}: {url}: {len(schedule) + 1} tries in a row failed, the last: {_said(error)}. "
                    "Check the connection and the server, and start again: the run continues from its last checkpoint."
                ) from error
            log.warning("%s: %s; trying again in %g s", url, _said(error), left[0])
            time.sleep(left.pop(0))


class MissingError(DataError):
    """The source has no such object (404)."""


class ForbiddenError(DataError):
    """The source refuses access (401, 403)."""


def _said(error: Exception) -> str:
    line = str(error).partition("\n")[0]
    if any(service in line for service in _CREDENTIAL_SERVICES):
        return f"no credentials were found in the environment, and the machine's own service did not give any ({line})"
    return line


def get_optional(url: str, key: str, denied_is_absent: bool = False) -> bytes | None:
    """The content of a small file, or None where there is none.

    Where listing is not allowed, S3 denies access to files that do not exist. ``denied_is_absent`` takes such an answer as None.
    """
    try:
        return retried(lambda: bytes(obstore.get(*locate(url)).bytes()), url, key)
    except MissingError:
        return None
    except ForbiddenError as error:
        if denied_is_absent:
            return None
        raise ForbiddenError(
            f"{error} The file may also be missing: without the right to list (s3:ListBucket), S3 gives the same answer. Then upload it."
        ) from error


def locate(url: str) -> tuple[ObjectStore, str]:
    """The store of a URL, and the path in it."""
    global _used
    if _forked_after_use:
        raise DataError(f"{url}: a forked process cannot read remote shards after its parent has. Start it with 'forkserver' or 'spawn'.")
    _used = True
    parts = urlsplit(url)
    path = unquote(parts.path) if is_web(url) else parts.path
    return _store(parts.scheme, parts.netloc), path.lstrip("/")


@lru_cache
def _store(scheme: str, host: str) -> ObjectStore:
    url = f"{scheme}://{host}"
    allow_http = scheme == "http" or os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")
    kind: Any = {"s3": S3Store, "gs": GCSStore}.get(scheme, HTTPStore)
    client = {"allow_http": allow_http, "timeout": "1day", "read_timeout": f"{_STALL_S}s"}
    return kind.from_url(url, client_options=client, retry_config={"max_retries": 0})


def is_web(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def used_here() -> bool:
    """Whether this process has read remote shards. Its forks then cannot, because they lack the client's threads."""
    return _used


def _note_fork() -> None:
    global _forked_after_use
    _forked_after_use = _used


os.register_at_fork(after_in_child=_note_fork)
