"""The shards of ``experiment=visual7w``."""

from pathlib import Path

from data_pipelines.layouts.visual7w import read_visual7w
from data_pipelines.prepared import Experiment, Paths
from data_pipelines.shards import make_shards


def write(source: Paths, folder: Path) -> None:
    """The splits of the file."""
    for split in ("train", "val"):
        make_shards(read_visual7w(source["images"], source["annotations"], split), folder / split)


VISUAL7W = Experiment(
    "visual7w",
    files={"annotations": "visual7w/dataset_v7w_telling.json"},
    folders={"images": "visual7w/images"},
    sets=("train", "val"),
    write=write,
)
