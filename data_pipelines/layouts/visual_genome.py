"""Visual Genome: region descriptions and objects as JSON, boxes in pixels."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from data_pipelines.boxes import xywh_px_to_xyxy_norm
from data_pipelines.files import in_layout, read_json, require_folder
from data_pipelines.layout import Argument, layout
from data_pipelines.rows import Row
from timix_pl.core.errors import DataError
from timix_pl.core.sample import Region

Entry = dict[str, Any]
"""An image, a region or an object as published."""


@layout("visual_genome")
def read_visual_genome(
    images: Annotated[Path, Argument("the folder that holds VG_100K and VG_100K_2, or the photos themselves", "DIR")],
    image_data: Annotated[Path, Argument("image_data.json", "FILE")],
    regions: Annotated[Path | None, Argument("region_descriptions.json", "FILE")] = None,
    objects: Annotated[Path | None, Argument("objects.json; a box's phrase is the object's first name", "FILE")] = None,
) -> list[Row]:
    """Visual Genome: photos, region descriptions and objects as JSON.

    Rows come by image id; they have regions and no captions. Photos that COCO has too are split as there.

    Raises:
        DataError: neither regions nor objects are given, or a file is missing or in another layout.
    """
    if regions is None and objects is None:
        raise DataError("Visual Genome: give region_descriptions.json, objects.json, or both.")
    require_folder(images)
    boxes: dict[int, list[Entry]] = defaultdict(list)
    for path, name in ((regions, "regions"), (objects, "objects")):
        if path is not None:
            with in_layout(path, f"Visual Genome's {name}"):
                for entry in read_json(path):
                    boxes[entry["image_id"] if "image_id" in entry else entry["id"]] += entry[name]
    with in_layout(image_data, "Visual Genome"):
        listed = {entry["image_id"]: entry for entry in read_json(image_data)}
        rows = [_row(images, listed[i], boxes[i]) for i in sorted(listed)]
    return rows + [_unknown(i) for i in sorted(boxes.keys() - listed.keys())]


def _row(images: Path, image: Entry, boxes: Iterable[Entry]) -> Row:
    image_id, coco_id = image["image_id"], image.get("coco_id")
    folder, name = Path(urlsplit(image["url"]).path).parts[-2:]
    return Row(
        key=f"vg_{image_id}",
        image=images / folder / name if (images / folder).is_dir() else images / name,
        regions=tuple(_region(box, image["width"], image["height"]) for box in boxes),
        extra={"source": "visual_genome", "image_id": image_id, "coco_id": coco_id},
        group=f"vg-{image_id}" if coco_id is None else f"coco-{coco_id}",
    )


def _region(box: Entry, width_px: float, height_px: float) -> Region:
    """A region has ``phrase``, ``width`` and ``height``; an object has ``names``, ``w`` and ``h``."""
    if "phrase" in box:
        phrase, sides_px = box["phrase"], (box["width"], box["height"])
    else:
        phrase, sides_px = box["names"][0], (box["w"], box["h"])
    return Region(phrase, xywh_px_to_xyxy_norm((box["x"], box["y"], *sides_px), width_px, height_px))


def _unknown(image_id: int) -> Row:
    return Row(f"image-{image_id}").failed("regions of an image that is not listed", f"image_id {image_id}")
