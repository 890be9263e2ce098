"""The folder that make_scenes leaves, whatever happens while it is made."""

import json
import os
import subprocess
import sys
import zlib
from collections import Counter

import pytest

from tests.unit.scenes.shards import FEW, all_bytes, make, read_split
from timix_pl.core.errors import ConfigError, DataError
from timix_pl.data.shards.sources import resolve_shards
from timix_pl.scenes import make as make_module
from timix_pl.scenes.render import render
from timix_pl.scenes.samples import draw_sample


def test_splits_are_ordinary_shards(tmp_path):
    folder = make(tmp_path / "scenes", **FEW)
    for split, num in (("train", 8), ("regions", 4), ("val", 4), ("zero_shot", 4)):
        (source,) = resolve_shards(str(folder / split))
        assert source.tars.manifest().num_samples == num


def test_same_seed_same_bytes_another_seed_other_scenes(tmp_path):
    first, again, other = (all_bytes(make(tmp_path / name, **FEW, seed=seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert first == again
    assert all(first[name] != other[name] for name in first)


def test_more_samples_extend_a_split(scenes, tmp_path):
    fewer = read_split(make(tmp_path / "scenes", **FEW), "train")
    assert [s["scene"] for s in fewer] == [s["scene"] for s in scenes["train"][:8]]


def test_a_sample_depends_on_its_address_alone():
    """Drawn in another process, in another order, with other hashing of strings."""
    code = """
import zlib
from timix_pl.scenes.render import render
from timix_pl.scenes.samples import draw_sample
for index in (9, 4):
    sample = draw_sample(7, "train", index, 0.5)
    print(sample.caption, zlib.crc32(render(sample.scene, 48).tobytes()))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "1"}
    elsewhere = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    here = [draw_sample(7, "train", index, 0.5) for index in (4, 9)]
    expected = [f"{sample.caption} {zlib.crc32(render(sample.scene, 48).tobytes())}" for sample in here]
    assert elsewhere.stdout.splitlines() == expected[::-1]


def test_splits_share_no_scene(scenes):
    seen = Counter(json.dumps(sample["scene"]) for samples in scenes.values() for sample in samples)
    assert max(seen.values()) == 1


def test_zero_shot_labels_are_balanced_and_right(scenes, tmp_path):
    described = json.loads((make(tmp_path / "scenes", **FEW) / "zero_shot" / "classes.json").read_text())
    classes, templates = described["classes"], described["templates"]
    assert len(set(classes)) == 48
    assert all("a {}" in template for template in templates)
    counts = Counter(sample["label"] for sample in scenes["zero_shot"])
    assert set(counts) == set(range(48))
    assert max(counts.values()) - min(counts.values()) <= 1
    for sample in scenes["zero_shot"]:
        (scene_object,) = sample["scene"]["objects"]
        assert classes[sample["label"]] == f"{scene_object['colour']} {scene_object['shape']}"


def test_finished_scenes_are_reused(tmp_path, monkeypatch):
    folder = make(tmp_path / "scenes", **FEW)
    before = all_bytes(folder)
    monkeypatch.setattr(make_module, "ShardWriter", None)
    assert make(folder, **FEW) == folder and all_bytes(folder) == before


def test_scenes_of_other_parameters_are_refused(tmp_path):
    folder = make(tmp_path / "scenes", **FEW)
    before = all_bytes(folder)
    with pytest.raises(DataError, match=r"seed=3 \(asked: 4\)"):
        make(folder, **FEW, seed=4)
    assert all_bytes(folder) == before


def test_a_folder_of_something_else_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match=r"scenes\.json is missing"):
        make(tmp_path, **FEW)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file/scenes cannot be made"):
        make(tmp_path / "file" / "scenes", **FEW)


def test_interrupted_generation_leaves_nothing_and_is_redone(tmp_path, monkeypatch):
    calls = []

    def interrupt(image):
        calls.append(image)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return b"jpeg"

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(make_module, "encode_jpeg", interrupt)
        make(tmp_path / "scenes", **FEW)
    assert list(tmp_path.iterdir()) == []
    assert all_bytes(make(tmp_path / "scenes", **FEW)) == all_bytes(make(tmp_path / "whole", **FEW))


def test_two_processes_at_once_leave_one_whole_folder(tmp_path, monkeypatch):
    encode = make_module.encode_jpeg

    def let_another_finish_first(image):
        monkeypatch.setattr(make_module, "encode_jpeg", encode)
        make(tmp_path / "scenes", **FEW)
        return encode(image)

    monkeypatch.setattr(make_module, "encode_jpeg", let_another_finish_first)
    make(tmp_path / "scenes", **FEW)
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]
    assert all_bytes(tmp_path / "scenes") == all_bytes(make(tmp_path / "whole", **FEW))


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("misaligned_frac", 1.5, "from 0 to 1"),
        ("misaligned_frac", -0.1, "from 0 to 1"),
        ("misaligned_frac", float("nan"), "from 0 to 1"),
        ("num_val", -1, "at least 1"),
        ("num_train", 10.5, "whole number"),
        ("image_size_px", 8, "at least 32"),
        ("seed", -1, "at least 0"),
    ],
)
def test_impossible_parameters_are_refused_before_anything_is_written(tmp_path, name, value, rule):
    with pytest.raises(ConfigError, match=rf"{name}={value}.*{rule}"):
        make(tmp_path / "scenes", **{name: value})
    assert list(tmp_path.iterdir()) == []


def test_all_impossible_parameters_are_named_at_once(tmp_path):
    with pytest.raises(ConfigError) as error:
        make(tmp_path / "scenes", num_train=0, num_val=-3, seed=-1)
    assert len(error.value.problems) == 3


def test_no_progress_bar_in_logs(tmp_path, capfd):
    make(tmp_path / "scenes", **FEW)
    assert capfd.readouterr() == ("", "")


def test_the_generator_gives_what_its_version_gave():
    """Change what is expected only together with GENERATOR_VERSION, so that folders made before are not taken for new ones."""
    samples = [draw_sample(0, "train", index, 0.5) for index in (0, 2)]
    given = [(sample.caption, round(render(sample.scene, 64).mean())) for sample in samples]
    assert (make_module.GENERATOR_VERSION, given) == (
        1,
        [
            ("we see a small dotted blue circle below a small plain blue triangle, a striped purple cross, and a dotted yellow star", 135),
            ("a photo of a large green cross, a purple star, and a large blue cross", 150),
        ],
    )
