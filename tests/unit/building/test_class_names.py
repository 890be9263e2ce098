"""Where the names and templates of zero-shot classes come from."""

import json
from types import SimpleNamespace

import open_clip
import pytest
from omegaconf import OmegaConf

from tests.tiny import IMAGE_SIZE_PX, encoded_image, random_pixels
from timix_pl.building.data import labelled_set
from timix_pl.building.evaluators import build_evaluators
from timix_pl.config.compose import to_root
from timix_pl.config.schema import RootConfig
from timix_pl.core.errors import DataError
from timix_pl.data.shards.writer import ShardWriter
from timix_pl.evaluation.class_names import class_names

MODEL = SimpleNamespace(image_size_px=IMAGE_SIZE_PX)
SIMPLE = [template("{}") for template in open_clip.SIMPLE_IMAGENET_TEMPLATES]


def config(**words):
    dotted = {"classes": "evaluation.classes", "templates": "evaluation.templates", "shards": "data.zero_shot_shards"}
    options = [f"{dotted.get(key, key)}={value}" for key, value in words.items()]
    return to_root(OmegaConf.merge(OmegaConf.structured(RootConfig), OmegaConf.from_dotlist(options)))


def names(**words):
    cfg = config(**words)
    return class_names(labelled_set(cfg, "zero_shot", MODEL), cfg.evaluation.classes, cfg.evaluation.templates)


@pytest.fixture
def shards(tmp_path):
    with ShardWriter(tmp_path / "shards") as writer:
        writer.write("a", b"not decoded here", "png", extra={"label": 0})
    return tmp_path / "shards"


def class_folders(folder, *classes):
    for name in classes:
        (folder / name).mkdir(parents=True)
        (folder / name / "0.png").write_bytes(encoded_image(random_pixels(8, 8, 0), "PNG"))
    return folder


def written(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_file_beside_the_shards_may_hold_classes_alone(shards):
    written(shards / "classes.json", {"classes": ["cat", "dog"], "templates": ["a {}"]})
    assert names(shards=shards) == (["cat", "dog"], ["a {}"])
    written(shards / "classes.json", ["cat", "dog"])
    assert names(shards=shards) == (["cat", "dog"], SIMPLE)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", ["x", "y"], (["x", "y"], SIMPLE)),
        ("a.json", {"classes": ["x", "y"], "templates": ["the {}"]}, (["x", "y"], ["the {}"])),
        ("a.txt", "x\ny of z\n", (["x", "y of z"], SIMPLE)),
    ],
)
def test_given_classes_win(shards, tmp_path, name, content, expected):
    written(shards / "classes.json", {"classes": ["cat"], "templates": ["a {}"]})
    assert names(shards=shards, classes=written(tmp_path / name, content)) == expected


def test_given_templates_win(shards, tmp_path):
    written(shards / "classes.json", {"classes": ["cat"], "templates": ["a {}"]})
    for name, content in (("t.txt", "one {}\ntwo {}\n"), ("t.json", ["one {}", "two {}"]), ("t.json", {"templates": ["one {}", "two {}"]})):
        assert names(shards=shards, templates=written(tmp_path / name, content)) == (["cat"], ["one {}", "two {}"])
    assert names(shards=shards, templates="simple")[1] == SIMPLE
    of_openai = names(shards=shards, templates="openai_imagenet")[1]
    assert len(of_openai) == 80 and "a bad photo of a {}." in of_openai


def test_imagenet_has_its_thousand_names(shards):
    classes, templates = names(shards=shards, classes="imagenet")
    assert (len(classes), classes[0], classes[-1], templates) == (1000, "tench", "toilet paper", SIMPLE)


def test_class_folders_name_themselves_unless_a_file_does(tmp_path):
    folder = class_folders(tmp_path / "images", "tulip", "rose")
    assert names(shards=folder) == (["rose", "tulip"], SIMPLE)
    written(folder / "classes.json", ["a rose", "a tulip"])
    assert names(shards=folder)[0] == ["a rose", "a tulip"]
    with pytest.raises(DataError, match=r"`classes=imagenet` names 1000 classes, but .* has 2 class folders"):
        names(shards=folder, classes="imagenet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.json", "[1, 2]", r"`classes=.*c\.json` must hold .*a list of texts"),
        ("c.json", "{", r"must hold .*or a list of classes, but"),
        ("c.json", '{"names": []}', "there are no classes in it"),
        ("c.txt", "cat\n\ndog", "one of the classes in each line, but: a list of texts that are not empty"),
        ("c.txt", "", "there are no classes in it"),
        ("missing/c.txt", None, r"No such file.*set `classes`"),
    ],
)
def test_files_of_another_form_are_refused(shards, tmp_path, name, content, message):
    if content is not None:
        written(tmp_path / name, content)
    with pytest.raises(DataError, match=message):
        names(shards=shards, classes=tmp_path / name)


def test_shards_without_names_say_where_to_put_them(shards):
    with pytest.raises(DataError, match=r"`dataset`: classes\.json beside .*\.tar must hold .*set `classes`"):
        names(shards=shards)


@pytest.mark.parametrize("task", ["linear_probe", "knn"])
def test_probes_need_both_sets_with_the_same_class_folders(tmp_path, task, caplog):
    train, test = class_folders(tmp_path / "train", "a", "b"), class_folders(tmp_path / "test", "a", "b")
    words = {"evaluation.tasks": f"[{task}]", "data.probe_train_shards": train}
    assert build_evaluators(config(**words), MODEL) == []
    assert f"{task} is left out, because data.zero_shot_shards is not set" in caplog.text
    assert [evaluator.choice for evaluator in build_evaluators(config(shards=test, **words), MODEL)] == [task]
    class_folders(test, "c")
    with pytest.raises(DataError, match=r"must have the same class folders, and 1 are only in one of them, the first of them c\."):
        build_evaluators(config(shards=test, **words), MODEL)
    with pytest.raises(DataError, match=r"probe_train_shards=.*train is data\.zero_shot_shards too.*name another set"):
        build_evaluators(config(shards=train, **words), MODEL)
