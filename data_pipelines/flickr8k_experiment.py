"""The shards of ``experiment=flickr8k``."""

from pathlib import Path

from data_pipelines.layouts.coco import read_coco
from data_pipelines.layouts.flickr import read_flickr
from data_pipelines.prepared import Experiment, Paths
from data_pipelines.shards import make_shards

VAL_FRAC = 0.2


def write(source: Paths, folder: Path) -> None:
    """Flickr8k's own split, and COCO split by image."""
    for name, split in (("train", source["train_split"]), ("val", source["val_split"])):
        make_shards(read_flickr(source["images"], source["captions"], split), folder / name)
    coco = read_coco(source["coco_images"], source["coco_captions"], source["coco_instances"])
    for name, part in (("regions", "train"), ("grounding", "val")):
        make_shards(coco, folder / name, part=part, val_frac=VAL_FRAC)


FLICKR8K = Experiment(
    "flickr8k",
    files={
        "captions": "flickr8k/Flickr8k.token.txt",
        "train_split": "flickr8k/Flickr_8k.trainImages.txt",
        "val_split": "flickr8k/Flickr_8k.devImages.txt",
        "coco_captions": "coco/annotations/captions_train2017.json",
        "coco_instances": "coco/annotations/instances_train2017.json",
    },
    folders={"images": "flickr8k/Images", "coco_images": "coco/train2017"},
    sets=("train", "val", "regions", "grounding"),
    write=write,
)
