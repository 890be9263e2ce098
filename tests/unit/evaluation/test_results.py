import json
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from timix_pl.core.types import EvaluationResult
from timix_pl.evaluation.results import named, write_result


def test_images_of_examples_become_files_beside_them(tmp_path):
    image = torch.randint(0, 256, (3, 4, 6), dtype=torch.uint8)
    evaluator = SimpleNamespace(choice="task", title="", metrics={})
    result = named(evaluator, {"a": 0.5}, {"a": 0.1}, [{"query": "x", "top": [{"image": image, "right": True}]}])
    write_result(tmp_path, result, step=3)
    (example,) = json.loads((tmp_path / "examples/task.json").read_text())
    assert example == {"query": "x", "top": [{"image": "task-0-top-0-image.png", "right": True}]}
    assert np.array_equal(np.array(Image.open(tmp_path / "examples/task-0-top-0-image.png")), image.permute(1, 2, 0))
    assert json.loads((tmp_path / "evaluation.json").read_text()) == {
        "step": 3,
        "metrics": {"task/a": 0.5},
        "chance": {"task/a": 0.1},
        "descriptions": {},
    }


def test_without_examples_there_is_no_folder_of_them(tmp_path):
    write_result(tmp_path, EvaluationResult({"a": 1.0}, {}), step=1)
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]


def test_examples_that_are_no_longer_of_the_result_are_removed(tmp_path):
    image = torch.zeros(3, 2, 2, dtype=torch.uint8)
    both = EvaluationResult({"a/x": 1.0, "b/x": 1.0}, {}, {"a": [{"image": image}, {"image": image}], "b": [{"image": image}]})
    write_result(tmp_path, both)
    kept = {path.name for path in (tmp_path / "examples").glob("b*")}
    write_result(tmp_path, EvaluationResult({"a/x": 1.0, "b/x": 1.0}, {}, {"a": [{"image": image}]}))  # b's come from an earlier call
    assert {path.name for path in (tmp_path / "examples").iterdir()} == kept | {"a.json", "a-0-image.png"}
    write_result(tmp_path, EvaluationResult({"c/x": 1.0}, {}))
    assert list((tmp_path / "examples").iterdir()) == []
