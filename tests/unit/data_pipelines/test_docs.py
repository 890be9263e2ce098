"""Every timix-data command of docs/your_own_data.md, run as it is written."""

import json
import re
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.cli import main
from timix_pl.data.shards.writer import ShardWriter

DOC = Path(__file__).parents[3] / "docs" / "your_own_data.md"
BLOCKS = re.findall(r"```bash\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("timix-data ")]
BOX = {"x": 0, "y": 0, "width": 4, "height": 4, "w": 4, "h": 4}


@pytest.fixture
def collections(tmp_path, make_image, monkeypatch):
    """One small collection of each layout, under the names that the page uses."""
    names = [f"{i}.jpg" for i in range(20)]
    for folder in ("my_photos", "Images", "train2017", "vg/VG_100K", "photos", "v7w", "train2014", "."):
        for name in names:
            make_image(tmp_path / folder / name)
    for i in range(20):
        (tmp_path / "my_photos" / f"{i}.txt").write_text("a photo")
    write = {
        "Flickr8k.token.txt": "".join(f"{name}#0\ta photo\n" for name in names),
        "Flickr_8k.trainImages.txt": "\n".join(names[:10]),
        "Flickr_8k.devImages.txt": "\n".join(names[10:]),
        "pairs.tsv": "filepath\ttitle\n0.jpg\ta photo\n",
        "bare.tsv": "a photo\t0.jpg\n",
    }
    pair = {"question": "Who?", "answer": "A dog.", "multiple_choices": ["A cat."], "type": "who"}
    visual7w = [{"image_id": i, "filename": f"{i}.jpg", "split": ("train", "val")[i % 2], "qa_pairs": [pair]} for i in range(20)]
    make_image(tmp_path / "train2014" / "COCO_train2014_000000000001.jpg")
    asked = {"question_id": 1, "image_id": 1, "question": "Who?"}
    given = {"question_id": 1, "image_id": 1, "answers": [{"answer": "dog"}], "answer_type": "other"}
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 40, "height": 20} for i in range(20)]
    boxes = [{"image_id": i, "category_id": 1, "bbox": [0, 0, 4, 4]} for i in range(20)]
    image_data = [{"image_id": i, "url": f"http://x/VG_100K/{i}.jpg", "width": 40, "height": 20} for i in range(20)]
    write_json = {
        "captions_train2017.json": {"images": images, "annotations": [{"image_id": 0, "caption": "a photo"}]},
        "instances_train2017.json": {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "dog"}]},
        "dataset_v7w_telling.json": {"images": visual7w},
        "v2_OpenEnded_mscoco_train2014_questions.json": {"questions": [asked]},
        "v2_mscoco_train2014_annotations.json": {"annotations": [given], "data_subtype": "train2014"},
        "image_data.json": image_data,
        "region_descriptions.json": [{"id": 0, "regions": [BOX | {"phrase": "a dog"}]}],
        "objects.json": [{"image_id": 0, "objects": [BOX | {"names": ["dog"]}]}],
    }
    for name, content in (write | {name: json.dumps(content) for name, content in write_json.items()}).items():
        (tmp_path / name).write_text(content)
    for i in range(2):
        pq.write_table(pa.table({"path": ["0.jpg"], "text": ["a photo"]}), tmp_path / f"part-{i}.parquet")
    with ShardWriter(tmp_path / "laion_output", samples_per_shard=1) as writer:
        for i in range(2):
            writer.write(str(i), (tmp_path / "0.jpg").read_bytes(), "jpg", captions=["a photo"])
    for i in range(2):
        (tmp_path / "laion_output" / f"shard-00000{i}.tar").rename(tmp_path / "laion_output" / f"0000{i}.tar")
    monkeypatch.chdir(tmp_path)


def test_every_command_works_as_written(collections, capsys):
    assert len(COMMANDS) > 10
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        assert program == "timix-data"
        assert main(arguments) == 0, command + "\n" + capsys.readouterr().err
