"""What people type becomes one checked configuration; every slip gets a message of its own, all of them together."""

import pytest
from omegaconf import OmegaConf

from timix_pl.config.compose import compose, recompose, search_path_override, tasks_override
from timix_pl.config.conf_dir import conf_dir, groups
from timix_pl.config.facts import value_of
from timix_pl.core.choices import MIXERS
from timix_pl.core.errors import ConfigError, RunError

DEMO = ["experiment=demo"]


def problems_of(overrides):
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    return caught.value.problems


def test_the_command_line_wins_over_the_experiment_and_that_over_the_groups():
    assert compose(DEMO).model.architecture == "timix-tiny"
    assert compose(DEMO).run_dir == "runs/demo"
    cfg = compose([*DEMO, "model.architecture=ViT-B-32", "name=mine", "optim.lr=1"])
    assert (cfg.model.architecture, cfg.run_dir, cfg.optim.lr) == ("ViT-B-32", "runs/mine", 1.0)


@pytest.mark.parametrize(
    ("model", "architecture", "block"),
    [
        ("tiny", "timix-tiny", 2),
        ("vit_s_16", "ViT-S-16", 6),
        ("vit_b_32", "ViT-B-32", 6),
        ("vit_b_16", "ViT-B-16", 6),
        ("vit_l_14", "ViT-L-14", 12),
    ],
)
def test_a_model_brings_its_pta_block_unless_one_is_typed(model, architecture, block):
    base = ["data=scenes", "trainer.max_steps=1", f"model={model}"]
    assert (compose(base).model.architecture, compose(base).pta.block) == (architecture, block)
    assert compose([*base, "pta.block=1"]).pta.block == 1


@pytest.mark.parametrize("task", ["vqa", "captioning"])
def test_a_task_has_smaller_steps_unless_something_else_is_said(task):
    base = [f"task={task}", "data.train_shards=a", "trainer.max_steps=1"]
    assert compose(base).data.global_batch_size == 64
    assert compose([*base, "data.global_batch_size=8"]).data.global_batch_size == 8
    assert compose(["experiment=demo", "task=captioning"]).data.global_batch_size == 128


def test_the_level_of_mixing_is_typed_without_quotes():
    assert compose([*DEMO, "mixing.level=tokens:3"]).mixing.level == "tokens:3"
    assert compose(DEMO).mixing.level == "pixels"


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, names in groups().items() for name in names])
def test_every_choice_composes(group, name, monkeypatch):
    monkeypatch.setenv("TIMIX_REAL_DATA", "real")
    shards = ["data.train_shards=a"] if group != "experiment" and name != "scenes" else []
    shards += ["data.region_shards=b"] if shards and name not in ("vqa", "captioning") else []
    length = ["trainer.max_steps=1"] if group != "experiment" else []
    devices = ["trainer.devices=2"] if name == "slurm" else []
    cfg = compose([*shards, *length, *devices, f"{group}={name}"])
    if group in ("data", "mixing", "loss", "logger", "launcher"):
        assert getattr(cfg, group).kind == name


def test_the_folder_of_published_data_comes_from_the_environment_or_an_override(monkeypatch):
    monkeypatch.delenv("TIMIX_REAL_DATA", raising=False)
    assert compose(DEMO).real_data_dir is None
    monkeypatch.setenv("TIMIX_REAL_DATA", "/published")
    assert compose(DEMO).real_data_dir == "/published"
    assert compose([*DEMO, "real_data_dir=/mine"]).real_data_dir == "/mine"


@pytest.mark.parametrize(
    ("typed", "parts"),
    [
        ("model=vit_l", ["no such option", "nearest: vit_l_14", "choose from"]),
        ("experiment=nope", ["no such option", "choose from demo"]),
        ("mixing.ratioo=1", ["there is no key mixing.ratioo", "nearest: mixing.ratio"]),
        ("+mixing.ratioo=1", ["there is no key mixing.ratioo"]),
        ("++new.key=1", ["there is no key new.key"]),
        ("batch_size=64", ["there is no key batch_size", "data.global_batch_size"]),
        ("seed.x=1", ["there is no key seed.x"]),
        ("data={flip: true}", ["there is no key data.flip"]),
        ("data.global_batch_size=many", ["data.global_batch_size takes a whole number", "the default is 256"]),
        ("data.global_batch_size=2.5", ["data.global_batch_size takes a whole number"]),
        ("data.num_workers=null", ["data.num_workers takes a whole number"]),
        ("mixing.kind=timx", ["there is no mixing strategy 'timx'; nearest: timix", "choose from none, cutmix"]),
        ("data.augmentation.scale=[a,b]", ["data.augmentation.scale takes a list, each item a number"]),
        ("trainer={max_steps: x}", ["trainer.max_steps takes a whole number, or null"]),
        ("data.val_shards=a-{00..09}.tar", ["""'data.val_shards="a-{00..09}.tar"'"""]),
        ("resume=step=5.ckpt", ["""'resume="step=5.ckpt"'"""]),
        ("optim.lr", ["expected KEY=VALUE"]),
        ("mixing.ratio=0,1", ["add -m", "'mixing.ratio=[0,1]'"]),
        ("run_dir=${nowhere}", ["nowhere"]),
    ],
)
def test_a_slip_of_typing_gets_one_message_that_repeats_it(typed, parts):
    (message,) = problems_of([*DEMO, typed])
    assert message.startswith(f"{typed}: ")
    assert [part for part in parts if part not in message] == []


def test_the_quoted_form_that_a_message_proposes_is_read():
    cfg = compose(['data.train_shards="a-{00..09}.tar"', "data.region_shards=b", "model=tiny", "trainer.max_steps=1"])
    assert cfg.data.train_shards == "a-{00..09}.tar"


def test_slips_and_contradictions_come_together():
    messages = problems_of([*DEMO, "mixing.ratioo=1", "model=vit_l", "data.num_workers=x", "mixing.ratio=2"])
    starts = ["mixing.ratioo=1: there is no key", "model=vit_l: no such option", "data.num_workers=x: ", "mixing.ratio=2: must be"]
    assert len(messages) == len(starts)
    assert all(message.startswith(start) for message, start in zip(messages, starts, strict=True))


def test_a_mistyped_task_is_all_that_is_told():
    (message,) = problems_of(["task=capt", "init=nowhere", "captioning.dim=96"])
    assert message == "task=capt: no such option; nearest: captioning; choose from captioning, pretrain, vqa"


SWITCHED_OFF = [
    ["experiment=flickr8k_captioning", "captioning.decoder=gpt2"],
    ["experiment=visual7w", "vqa.kind=multiple_choice"],
    ["experiment=visual7w", "tune.towers=all"],
    ["experiment=demo", "task=captioning"],
]


@pytest.mark.parametrize("words", SWITCHED_OFF, ids=" ".join)
def test_what_an_experiment_sets_may_be_switched_off(words, monkeypatch):
    monkeypatch.setenv("TIMIX_REAL_DATA", "real")
    key, _, value = words[1].partition("=")
    assert str(value_of(compose(words), key)) == value


def test_an_option_that_is_typed_must_be_of_use(monkeypatch):
    monkeypatch.setenv("TIMIX_REAL_DATA", "real")
    (message,) = problems_of(["experiment=visual7w", "vqa.kind=multiple_choice", "vqa.num_answers=10"])
    assert message.startswith("vqa.num_answers=10: has no effect with vqa.kind=multiple_choice")
    (message,) = problems_of(["experiment=demo", "task=captioning", "mixing.gamma=3"])
    assert message.startswith("mixing.gamma=3: has no effect with task=captioning")
    (message,) = problems_of(["experiment=visual7w", "vqa.kind=opn", "vqa.num_answers=10"])
    assert message.startswith("vqa.kind=opn: ")


def test_an_option_that_a_file_of_ones_own_sets_must_be_of_use(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /task: vqa\n  - override /model: tiny\ndata: {train_shards: a}\n"
        "trainer: {max_steps: 1}\ntune: {last_blocks: 1}\nmixing: {gamma: 2}\n"
    )
    one, two = problems_of([search_path_override(str(tmp_path)), "experiment=mine"])
    assert one.startswith("mixing.gamma=2: has no effect with task=vqa")
    assert two.startswith("tune.last_blocks=1: has no effect with tune.towers=frozen")


def test_a_mistyped_experiment_is_not_held_against_the_rest():
    messages = problems_of(["experiment=dmeo", "optim.lrr=1"])
    assert [message.partition(":")[0] for message in messages] == ["experiment=dmeo", "optim.lrr=1"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data.train_shards=a-{00..09}.tar", "data.region_shards=b", "trainer.max_steps=1"], []),
        (["data.trian_shards=a", "data.region_shards=b", "trainer.max_steps=1"], []),
        (["data=scens", "trainer.max_steps=1"], []),
        (["data.kind=scens", "trainer.max_steps=1"], []),
        (["mixing=nne", "data.train_shards=a", "trainer.max_steps=1"], []),
        (["data.train_shards=a", "data.region_shards=b", "trainer.max_steps=x"], []),
        (["data=scenes", "trainer.max_epochs"], []),
        (["data=scenes", "trainer.max_steps=1", "mixing.group_size=x", "mixing.ratio=0.01"], []),
        (["data=scens", "trainer.max_steps=1", "data.global_batch_size=1"], ["data.global_batch_size=1"]),
        (["data.train_shards=a", "optim.lr=x"], ["trainer.max_steps and trainer.max_epochs are not set"]),
        (["data=scenes", "trainer.devices=x", "trainer.max_steps=0"], ["trainer.max_steps=0"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_what_follows_from_a_slip_alone_is_not_told(words, told):
    _, *others = problems_of(["model=tiny", *words])
    assert [other.partition(":")[0].partition(",")[0] for other in others] == told


@pytest.fixture
def own_conf(tmp_path):
    """A user's folder with an experiment, a model and an experiment with a mistake."""
    files = {
        "experiment/mine.yaml": (
            "# @package _global_\ndefaults:\n  - override /data: scenes\n  - override /model: wide\ntrainer: {max_steps: 3}\n"
        ),
        "model/wide.yaml": "architecture: ViT-B-16\nimage_size_px: 64\n",
        "experiment/slip.yaml": "# @package _global_\ndefaults:\n  - demo\n  - _self_\noptim: {lrr: 1}\n",
    }
    for name, content in files.items():
        path = tmp_path / "own conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return search_path_override(str(tmp_path / "own conf"))


def test_a_folder_of_ones_own_joins_the_choices(own_conf):
    cfg = compose([own_conf, "experiment=mine"])
    assert (cfg.model.architecture, cfg.model.image_size_px, cfg.data.kind, cfg.trainer.max_steps) == ("ViT-B-16", 64, "scenes", 3)
    assert compose([own_conf, "experiment=demo"]).model.architecture == "timix-tiny"


def test_a_mistake_in_a_file_of_ones_own_is_named_beside_the_others(own_conf):
    first, second = problems_of([own_conf, "experiment=slip", "seed=x", "data=scenes", "trainer.max_steps=1"])
    assert "experiment=slip: there is no key optim.lrr; nearest: optim.lr" in first
    assert second.startswith("seed=x: seed takes a whole number")


def test_a_missing_folder_of_ones_own_is_refused():
    with pytest.raises(ConfigError, match="--config-dir nowhere: there is no such folder"):
        search_path_override("nowhere")


def test_a_run_is_composed_again_from_its_own_file(tmp_path):
    cfg = compose([*DEMO, "mixing.ratio=0.5"])
    saved = tmp_path / "config.yaml"
    saved.write_text(OmegaConf.to_yaml(OmegaConf.structured(cfg)))
    assert recompose(saved) == cfg
    changed = recompose(saved, ["data.val_shards=[x,{path: y, weight: 2}]", "evaluation.tasks=[retrieval]"])
    assert changed.data.val_shards == ["x", {"path": "y", "weight": 2}]
    assert changed.mixing.ratio == 0.5
    with pytest.raises(ConfigError, match=r"there is no key data\.val_shard; nearest: data\.val_shards"):
        recompose(saved, ["data.val_shard=x"])
    with pytest.raises(ConfigError, match="there is no evaluation 'grunding'; nearest: grounding"):
        recompose(saved, ["evaluation.tasks=[grunding]"])
    with pytest.raises(ConfigError, match=r"optim\.lr=0: has no effect in(.|\n)*retrieval_folds=0: must be(.|\n)*classes=imagnet: must be"):
        recompose(saved, ["evaluation.classes=imagnet", "evaluation.retrieval_folds=0", "optim.lr=0"])
    with pytest.raises(RunError, match="does not exist"):
        recompose(tmp_path / "other" / "config.yaml")


def test_options_that_a_runs_file_does_not_know_yet_can_be_given(tmp_path):
    """As in a run of an older version."""
    saved = tmp_path / "config.yaml"
    saved.write_text(OmegaConf.to_yaml(OmegaConf.structured(compose(DEMO))).replace("  captions_per_image: null\n", ""))
    assert "captions_per_image" not in saved.read_text()
    assert recompose(saved).evaluation.captions_per_image is None
    assert recompose(saved, ["evaluation.captions_per_image=5"]).evaluation.captions_per_image == 5
    with pytest.raises(ConfigError, match=r"^evaluation\.captions_per_image=0: must be at least 1"):
        recompose(saved, ["evaluation.captions_per_image=0"])
    with pytest.raises(ConfigError, match=r"evaluation\.captions_per_image=x: evaluation\.captions_per_image takes a whole number"):
        recompose(saved, ["evaluation.captions_per_image=x"])


def test_the_folder_of_choices_is_the_repositorys():
    assert (conf_dir() / "config.yaml").is_file()
    assert {"none", *MIXERS.names()} == set(groups()["mixing"])


@pytest.mark.parametrize(
    "word", ["evaluation=[retrieval,grounding]", "evaluation=retrieval,grounding", "evaluation.tasks=[retrieval,grounding]"]
)
def test_evaluation_takes_a_list_of_tasks(word):
    assert compose(["experiment=demo", word]).evaluation.tasks == ["retrieval", "grounding"]


def test_evaluation_is_a_choice_too_and_a_mistyped_task_is_told():
    assert compose(["experiment=demo", "evaluation=default"]).evaluation.tasks == ["retrieval", "zero_shot", "grounding"]
    assert compose(["experiment=demo", "evaluation=[]"]).evaluation.tasks == []
    for word in ("evaluation=retreival", "evaluation=[retreival]"):
        with pytest.raises(ConfigError, match="nearest: retrieval"):
            compose(["experiment=demo", word])


def test_where_there_are_no_choices_evaluation_is_a_list_of_tasks():
    assert tasks_override("evaluation=retreival", choices=False) == "evaluation.tasks=[retreival]"
    assert tasks_override("evaluation=", choices=False) == "evaluation.tasks=[]"
    assert tasks_override("evaluation=default") == "evaluation=default"


def test_options_of_a_trained_run_are_checked_when_it_is_evaluated(tmp_path):
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(compose(["experiment=demo"]))))
    for word in ("captioning.num_beams=0", "evaluation.mi_pairs=0"):
        with pytest.raises(ConfigError, match=f"{word}: must be"):
            recompose(tmp_path / "config.yaml", [word])


def test_a_damaged_configuration_of_a_run_is_told_without_a_stack_trace(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: [1")
    with pytest.raises(RunError, match="cannot be read"):
        recompose(tmp_path / "config.yaml", ["seed=1"])
