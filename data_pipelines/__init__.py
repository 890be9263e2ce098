"""Convert published collections to tar shards: the command ``timix-data``.

A layout (``layouts/``) turns a collection into rows, stages (``stages.py``) turn rows into rows, and ``shards.py`` writes them.
"""

from os import PathLike
from pathlib import Path


def prepare_flickr8k(real_data_dir: str | PathLike[str] | None, cache_dir: str | PathLike[str]) -> dict[str, Path]:
    """Make shards of Flickr8k pairs, with COCO boxes as region supervision. Existing shards are used again.

    Args:
        real_data_dir: contains ``flickr8k/`` and ``coco/`` as published; not needed once the shards exist.
        cache_dir: the shards are written to ``CACHE_DIR/flickr8k``.
    Returns:
        Shard folders: ``train`` and ``val`` (Flickr8k's own split), ``regions`` and ``grounding`` (COCO, split by image).
    Raises:
        DataError: a file is missing, or the shards in ``cache_dir`` were made from other data.
    """
    from data_pipelines.flickr8k_experiment import FLICKR8K  # not at the top: it imports torch, which would slow down 'timix-data --help'
    from data_pipelines.prepared import prepare

    return prepare(FLICKR8K, real_data_dir, cache_dir)


def prepare_visual7w(real_data_dir: str | PathLike[str] | None, cache_dir: str | PathLike[str]) -> dict[str, Path]:
    """Make shards of Visual7W's "telling" questions. Existing shards are used again.

    Args:
        real_data_dir: contains ``visual7w/`` as published; not needed once the shards exist.
        cache_dir: the shards are written to ``CACHE_DIR/visual7w``.
    Returns:
        Shard folders: ``train`` and ``val`` (the splits of the file).
    Raises:
        DataError: a file is missing, or the shards in ``cache_dir`` were made from other data.
    """
    from data_pipelines.prepared import prepare
    from data_pipelines.visual7w_experiment import VISUAL7W

    return prepare(VISUAL7W, real_data_dir, cache_dir)
