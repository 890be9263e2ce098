"""Who sets the parameters of components by the keys of a configuration reads these keys in the components' messages."""

import pytest
import torch
from omegaconf import OmegaConf

from tests.tiny import tiny_model, write_shards
from timix_pl.building.checkpoints import Facts
from timix_pl.building.evaluators import build_evaluators
from timix_pl.building.keys import DECODER, FINE_TUNED, RUN
from timix_pl.building.model import build_model
from timix_pl.config.compose import compose, to_root
from timix_pl.config.conf_dir import groups
from timix_pl.config.schema import RootConfig
from timix_pl.config.schema_options import schema_options
from timix_pl.core.choices import TASKS
from timix_pl.core.errors import DataError, ModelError, ShapeError
from timix_pl.evaluation.evaluator import EvaluationError, run_tasks
from timix_pl.runs.dry_run import dry_run

CPU = torch.device("cpu")
DEMO = ["experiment=demo", "trainer.peak_tflops=1"]


def test_what_is_said_in_place_of_a_parameter_is_an_option_or_a_choice():
    keys = [word.partition("=")[0] for table in (RUN, FINE_TUNED, DECODER) for said in table.values() for word in said.split(" and ")]
    assert [key for key in keys if key not in schema_options() and key not in groups()] == []


@pytest.mark.parametrize(
    ("words", "error", "says"),
    [
        (["pta.block=9"], ModelError, r"^pta\.block=9: the image tower has 4 blocks.*at most pta\.block=4$"),
        (["model.image_size_px=70"], ModelError, r"^model\.image_size_px=70: not a multiple"),
        (["mixing.level=tokens:4"], ModelError, r"^mixing\.level=tokens:4: .* to mixing\.level=tokens:3$"),
        (["mixing.min_side=1", "mixing.max_side=1"], ShapeError, r"^mixing\.min_side=1.*, mixing\.max_side=1.* \(model\.image_size_px\)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_run_that_cannot_be_built_names_the_keys(words, error, says):
    with pytest.raises(error, match=says):
        dry_run(compose([*DEMO, *words]))


def fine_tuned(task: str, *words: str, facts: Facts | None = None):
    cfg = compose([f"task={task}", "data=scenes", "model=tiny", "trainer.max_steps=1", *words])
    return TASKS[task](cfg).model(build_model(cfg, "meta"), facts)


def test_a_fine_tuned_model_names_its_own_block_and_the_tower_the_pta_heads():
    with pytest.raises(ModelError, match=r"^tune\.block=9: .* or tune\.block=null for the last one$"):
        fine_tuned("captioning", "tune.block=9")
    with pytest.raises(ModelError, match=r"^pta\.block=9: "):
        fine_tuned("captioning", "pta.block=9")
    with pytest.raises(ModelError, match=r"^tune\.last_blocks=9: .* or tune\.towers=all$"):
        fine_tuned("captioning", "tune.towers=last", "tune.last_blocks=9")


def test_a_decoder_that_cannot_be_loaded_is_named_by_its_key(tmp_path):
    with pytest.raises(ModelError, match=rf"^captioning\.decoder={tmp_path}/nowhere: cannot be loaded"):
        fine_tuned("captioning", f"captioning.decoder={tmp_path}/nowhere")


def evaluated(task: str, *words: str) -> RootConfig:
    given = OmegaConf.from_dotlist([f"evaluation.tasks=[{task}]", *words])
    return to_root(OmegaConf.merge(OmegaConf.structured(RootConfig), given))


@pytest.mark.parametrize(
    ("task", "words", "says"),
    [
        ("retrieval", ["evaluation.retrieval_folds=3"], "evaluation.retrieval_folds=3 does not divide the 5 images"),
        (
            "retrieval",
            ["evaluation.captions_per_image=6"],
            ["fewer than evaluation.captions_per_image=6. ", "or evaluation.captions_per_image=null for all"],
        ),
        ("mutual_information", ["evaluation.mi_pairs=6"], "evaluation.mi_pairs=6: data.val_shards has 5 pairs"),
        ("retrieval", ["data.max_image_px=10"], "pixels, more than data.max_image_px=10; repair or remove it"),
        ("retrieval", ["data.max_image_mb=0.001"], "more than data.max_image_mb=0.001; repair or remove it"),
    ],
    ids=["folds", "captions", "pairs", "pixels", "bytes"],
)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_evaluation_that_fails_names_the_keys_also_from_a_loader_process(tmp_path, task, words, says, num_workers):
    shards = write_shards(tmp_path / "val", 5)
    cfg = evaluated(task, f"data.val_shards={shards}", f"data.num_workers={num_workers}", *words)
    model = tiny_model()
    with pytest.raises(EvaluationError) as failed:
        run_tasks(build_evaluators(cfg, model), model, CPU)
    for part in [says] if isinstance(says, str) else says:
        assert part in failed.value.problems[task]


def test_an_evaluation_that_cannot_start_names_the_keys(tmp_path):
    shards = write_shards(tmp_path / "val", 5)
    with pytest.raises(DataError, match=r"^data\.zero_shot_shards: classes\.json beside .* or set evaluation\.classes\.$"):
        build_evaluators(evaluated("zero_shot", f"data.zero_shot_shards={shards}"), tiny_model())
