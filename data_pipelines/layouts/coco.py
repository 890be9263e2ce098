"""COCO: captions and instances as JSON, boxes in pixels."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from data_pipelines.boxes import xywh_px_to_xyxy_norm
from data_pipelines.files import in_layout, read_json, require_folder
from data_pipelines.layout import Argument, layout
from data_pipelines.rows import Problem, Row
from timix_pl.core.errors import DataError
from timix_pl.core.sample import Region

Entry = dict[str, Any]
"""An image or an annotation as published."""


@layout("coco")
def read_coco(
    images: Annotated[Path, Argument("the folder of photos, such as train2017", "DIR")],
    captions: Annotated[Path | None, Argument("captions_*.json", "FILE")] = None,
    instances: Annotated[Path | None, Argument("instances_*.json; a box's phrase is its category", "FILE")] = None,
) -> list[Row]:
    """COCO: photos, captions and instances (boxes) as JSON.

    Rows come by image id. Crowd boxes, which cover many objects, are left out.

    Raises:
        DataError: neither file is given, or one is missing or in another layout.
    """
    if captions is None and instances is None:
        raise DataError("COCO: give the captions JSON, the instances JSON, or both.")
    require_folder(images)
    listed: dict[int, Entry] = {}
    texts: dict[int, list[str]] = defaultdict(list)
    boxes: dict[int, list[Entry]] = defaultdict(list)
    phrases: dict[int, str] = {}
    if captions is not None:
        with in_layout(captions, "COCO captions"):
            content = read_json(captions)
            listed |= {image["id"]: image for image in content["images"]}
            for annotation in content["annotations"]:
                texts[annotation["image_id"]].append(annotation["caption"])
    if instances is not None:
        with in_layout(instances, "COCO instances"):
            content = read_json(instances)
            listed |= {image["id"]: image for image in content["images"]}
            phrases = {category["id"]: category["name"] for category in content["categories"]}
            for annotation in content["annotations"]:
                boxes[annotation["image_id"]].append(annotation)
    with in_layout(instances or images, "COCO"):
        rows = [_row(images, listed[i], texts[i], boxes[i], phrases) for i in sorted(listed)]
    return rows + [_unknown(i) for i in sorted((texts.keys() | boxes.keys()) - listed.keys())]


def _row(images: Path, image: Entry, texts: Iterable[str], boxes: Iterable[Entry], phrases: dict[int, str]) -> Row:
    regions, crowds = [], []
    for annotation in boxes:
        phrase, xywh_px = phrases[annotation["category_id"]], annotation["bbox"]
        if annotation.get("iscrowd"):
            crowds.append(Problem("crowd box", f"{phrase!r} {xywh_px} px"))
        else:
            regions.append(Region(phrase, xywh_px_to_xyxy_norm(xywh_px, image["width"], image["height"])))
    name = image["file_name"]
    return Row(
        key=Path(name).stem,
        image=images / name,
        captions=tuple(texts),
        regions=tuple(regions),
        extra={"source": "coco", "image_id": image["id"], "file_name": name},
        group=f"coco-{image['id']}",
        left_out=tuple(crowds),
    )


def _unknown(image_id: int) -> Row:
    return Row(f"image-{image_id}").failed("annotations of an image that is not listed", f"image_id {image_id}")
