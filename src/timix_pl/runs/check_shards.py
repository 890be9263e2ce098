"""Whether the shards that a run names are there, before it starts."""

from timix_pl.config.schema import RootConfig
from timix_pl.config.validate import LABELLED_SHARDS, SHARDS
from timix_pl.core.errors import DataError
from timix_pl.data.shards.sources import is_image_folder, resolve_shards


def shard_problems(cfg: RootConfig) -> list[str]:
    """Local shards that are not there. For a start alone: no file is looked at before that."""
    found = []
    for name in SHARDS:
        spec = getattr(cfg.data, name)
        if spec is None or cfg.data.prepare is not None or "://" in str(spec) or "pipe:" in str(spec):
            continue
        if name in LABELLED_SHARDS and is_image_folder(spec):
            continue
        try:
            resolve_shards(spec, f"data.{name}")
        except DataError as error:
            found.append(str(error))
    return found
