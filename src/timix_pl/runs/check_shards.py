"""Check that the shards of a run exist, before it starts."""

from timix_pl.config.facts import value_of
from timix_pl.config.rules import Shards
from timix_pl.config.schema import RootConfig
from timix_pl.config.validate import shard_options
from timix_pl.core.errors import DataError
from timix_pl.data.shards.sources import is_image_folder, resolve_shards


def shard_problems(cfg: RootConfig) -> list[str]:
    """A message for each option whose local shards do not exist. Separate from the configuration's checks, which read no files."""
    found = []
    for option in shard_options():
        spec = value_of(cfg, option.key)
        if spec is None or cfg.data.prepare is not None or "://" in str(spec) or "pipe:" in str(spec):
            continue
        if option.facts.within == Shards(labelled=True) and is_image_folder(spec):
            continue
        try:
            resolve_shards(spec, option.key)
        except DataError as error:
            found.append(str(error))
    return found
