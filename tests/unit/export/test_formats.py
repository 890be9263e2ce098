"""An export is whole or absent, replaces only its own kind, and its card says how it is loaded."""

import math
import re

import onnxruntime
import pytest
import safetensors
import torch
import yaml

from tests.commands import REPOSITORY
from tests.unit.export.cards import assert_of_the_model, code_of, shown_by_the_cards
from tests.unit.export.models import FACTS, trained
from timix_pl.core.choices import EXPORT_FORMATS
from timix_pl.core.errors import ConfigError, ModelError
from timix_pl.export import writing
from timix_pl.export.export import export
from timix_pl.export.formats import onnx, open_clip

FORMATS = ["open_clip", "hf", "safetensors", "onnx"]
"""In the order of docs/exporting.md."""


def test_every_format_is_tested():
    assert sorted(FORMATS) == EXPORT_FORMATS.names()


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """The model, the folder of its exports, and what the code of their cards shows; of all formats but ONNX, which is in test_onnx.py."""
    model, folder = trained("test-clip", init_logit_bias=-10.0), tmp_path_factory.mktemp("exports")
    for format in FORMATS[:-1]:
        export(model, FACTS, format, folder / format)
    return model, folder, shown_by_the_cards(folder, FORMATS[:-1])


@pytest.mark.parametrize("format", FORMATS[:-1])
def test_the_code_of_the_card_runs_without_timix_and_shows_the_models_features(format, exports):
    model, folder, shown = exports
    assert_of_the_model(shown[format], model, folder)


@pytest.fixture
def no_graphs(monkeypatch):
    """Sessions of onnxruntime run what would have been exported: to export it takes long, and test_onnx.py does."""
    parts = {}

    class Session:
        def __init__(self, path):
            self.part = parts[path]

        def run(self, _, inputs):
            with torch.no_grad():
                return [self.part(*map(torch.from_numpy, inputs.values())).numpy()]

    monkeypatch.setattr(onnx, "_write_graph", lambda part, inputs, output, path: parts.update({path: part}))
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return parts


def test_the_page_on_exporting_has_the_code_of_the_cards(tmp_path, no_graphs):
    blocks = re.findall(r"^```python\n(.*?)^```", (REPOSITORY / "docs/exporting.md").read_text(), re.M | re.S)
    model = trained("test-clip", image_size_px=64)
    model.encoder.logit_scale.data.fill_(math.log(14.3))
    for format, block in zip(FORMATS, blocks[1:], strict=True):
        export(model, FACTS, format, tmp_path / "out")
        code = re.sub(r"14\.[23]\d{5,}", "14.3", code_of(tmp_path / "out").replace('"out"', '"exports/demo"'))
        assert code.split() == block.split()


def test_onnx_writes_no_patch_scores_without_a_pta_head(tmp_path, no_graphs):
    export(trained("test-clip", with_pta=False), FACTS, "onnx", tmp_path / "out")
    assert [path.name for path in no_graphs] == ["image.onnx", "text.onnx"] and "pta" not in code_of(tmp_path / "out")


def test_a_card_tells_what_the_run_was_and_found(tmp_path):
    export(trained("test-clip"), FACTS, "safetensors", tmp_path / "out")
    _, front, body = (tmp_path / "out/README.md").read_text().split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["library_name"] == "timix-pl" and front["pipeline_tag"] == "zero-shot-image-classification"
    for part in (
        "# a run",
        "7 steps, 224 image-text pairs seen",
        "| `data.train_shards` | shards/train |",
        "The weights are those of step 7.",
        "| metric | result | chance | after step | data |",
        "| `retrieval/x` | 25.0% | 12.5% | 9 | val |\n| `retrieval/x` | 20.0% | - | 7 | test, 10 samples |",
    ):
        assert part in body


def test_a_card_of_a_run_that_was_not_evaluated(tmp_path):
    export(trained("test-clip"), FACTS._replace(results=[]), "open_clip", tmp_path / "out")
    assert "The run was not evaluated." in (tmp_path / "out/README.md").read_text()


def test_an_earlier_export_is_replaced_and_other_files_are_not(tmp_path):
    model, out = trained("test-clip"), tmp_path / "out"
    export(model, FACTS, "safetensors", out)
    export(model, FACTS, "open_clip", out)
    assert (out / "open_clip_config.json").exists() and not (out / "model.safetensors").exists()
    (out / "timix_export.json").unlink()
    with pytest.raises(ConfigError, match="holds files that are no export of timix-export; name another, or empty it"):
        export(model, FACTS, "open_clip", out)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file"):
        export(model, FACTS, "open_clip", tmp_path / "file")
    (tmp_path / "empty").mkdir()
    export(model, FACTS, "open_clip", tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "out"]


def test_a_full_disk_leaves_the_earlier_export_alone(tmp_path, monkeypatch):
    model, out = trained("test-clip"), tmp_path / "out"
    export(model, FACTS, "open_clip", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_, **__):
        raise safetensors.SafetensorError("No space left on device")

    monkeypatch.setattr(writing, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        export(trained("test-clip", seed=5), FACTS, "open_clip", out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert list(tmp_path.iterdir()) == [out]


def test_an_export_with_other_features_is_not_kept(tmp_path, monkeypatch):
    right = open_clip.state_dict
    monkeypatch.setattr(open_clip, "state_dict", lambda model: right(model) | {"visual.proj": right(model)["visual.proj"] * 1.01 + 1e-3})
    with pytest.raises(ModelError, match="the image features of the export differ from the model's by"):
        export(trained("test-clip"), FACTS, "open_clip", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_all_may_read_the_files_that_the_umask_allows(tmp_path):
    export(trained("test-clip"), FACTS, "safetensors", tmp_path / "out")
    assert len({path.stat().st_mode for path in (tmp_path / "out").glob("*.*")}) == 1
