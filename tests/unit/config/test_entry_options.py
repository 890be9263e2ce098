"""Options of plugins' entries: what they are set by, what is refused, and how a choice of a plugin composes."""

import sys
from enum import Enum
from types import ModuleType
from typing import Literal

import pytest
from hydra.core.config_store import ConfigStore

from timix_pl.building.entries import create
from timix_pl.cli.plugins import plugin_help
from timix_pl.config.compose import compose, search_path_override
from timix_pl.config.entry_options import entry_options
from timix_pl.config.schema import RootConfig
from timix_pl.config.sweep import sweep_jobs
from timix_pl.core.choices import EVALUATORS, LOSS_TERMS, MIXERS, OPTIMIZERS
from timix_pl.core.errors import ConfigError, RunError
from timix_pl.core.registry import Registry
from timix_pl.evaluation.evaluator import Evaluator
from timix_pl.mixing.mixer import Mixer
from timix_pl.optim.optimizer import OptimizerChoice
from timix_pl.runs.run_dir import claimed, write_config

DEMO = ["experiment=demo"]

Size = Enum("Size", ["small", "large"])


class Halves(Mixer):
    """The left part of an image, beside the right part of its partner."""

    def __init__(self, grid, *, share: float = 0.5, side: Literal["left", "right"] = "left", size: Size = Size.small):
        super().__init__(grid)

    def plan(self, chosen, scores=None):
        raise NotImplementedError

    def apply(self, images, plan):
        raise NotImplementedError


class Scored(Halves):
    """One that needs scores."""

    needs_scores = True


class Mine(OptimizerChoice):
    """An optimizer with names that the schema has, too."""

    def __init__(self, *, beta2: float = 0.5, lr_scale: float = 3.0, steps: int = 1):
        self.options = (beta2, lr_scale, steps)

    def build(self, groups, lr):
        raise NotImplementedError

    def state(self, parameter, group):
        raise NotImplementedError


class Whole(Mine):
    """One that takes a whole number where the schema has any."""

    def __init__(self, *, beta2: int = 0):
        pass


class Demanding(Mine):
    """One with an option that must be set."""

    def __init__(self, *, steps: int):
        self.options = (steps,)


class Gap(Evaluator):
    """An evaluation."""

    def __init__(self, dataset, *, captions_used: int = 1, batch_size: int = 128, num_workers: int = 0):
        super().__init__(dataset, batch_size=batch_size, num_workers=num_workers)

    def run(self, model, device):
        raise NotImplementedError


class Term:
    """A loss term."""

    def __init__(self, encoder, *, weight: float = 1.0):
        pass


def names(registry):
    """timix-pl's own names, as messages list them."""
    return "".join(f"{name}, " for name in registry.own_names()) + ("or " if registry.own_names() else "")


@pytest.fixture(autouse=True)
def plugins(monkeypatch):
    """The entries of a plugin; afterwards they are gone."""
    compose(DEMO)  # registers the schema
    monkeypatch.setattr(ConfigStore.instance(), "repo", dict(ConfigStore.instance().repo))
    entries = [
        (MIXERS, "my_halves", Halves),
        (MIXERS, "scored", Scored),
        (OPTIMIZERS, "mine", Mine),
        (OPTIMIZERS, "whole", Whole),
        (OPTIMIZERS, "demanding", Demanding),
        (EVALUATORS, "gap", Gap),
        (LOSS_TERMS, "term", Term),
    ]
    for registry, name, entry in entries:
        registry.register(name)(entry)
    yield
    for registry, name, _ in entries:
        registry._entries.pop(name, None)


def problems_of(*words: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compose([*DEMO, *words])
    return caught.value.problems


def options(registry: Registry, name: str, *words: str):
    return entry_options(compose([*DEMO, *words]), registry, name)


def experiment(folder, text: str) -> list[str]:
    (folder / "experiment").mkdir()
    (folder / "experiment/mine.yaml").write_text(f"# @package _global_\n{text}")
    return [search_path_override(str(folder)), "experiment=mine"]


def test_a_choice_of_a_plugin_composes_like_a_file(tmp_path):
    assert [compose([*DEMO, f"mixing={name}"]).pta.enabled for name in ("my_halves", "scored", "cutmix")] == [False, True, False]
    for name in ("my_halves", "cutmix"):
        assert compose([*DEMO, "pta.enabled=true", f"mixing={name}"]).pta.enabled
    mine = experiment(tmp_path, "defaults:\n  - demo\n  - override /mixing: my_halves\n  - _self_\npta: {enabled: true}\n")
    assert (compose(mine).mixing.kind, compose(mine).pta.enabled) == ("my_halves", True)


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("mixing=my_halvs", ["no such option; nearest: my_halves", "cutmix", "scored", "plugins=[MODULE]"]),
        ("optim=min", ["no such option; nearest: mine", "adamw", "plugins=[MODULE]"]),
        ("mixing.kind=my_halvs", ["there is no mixing strategy 'my_halvs'; nearest: my_halves", "plugins=[MODULE]"]),
    ],
)
def test_a_mistyped_choice_lists_those_of_plugins(word, parts):
    (message,) = problems_of(word)
    assert message.startswith(f"{word}: ") and [part for part in parts if part not in message] == []


def test_an_entrys_own_defaults_hold_unless_the_sections_key_is_set():
    assert options(OPTIMIZERS, "mine", "optim=mine") == {}
    assert options(OPTIMIZERS, "mine", "optim=mine", "optim.beta2=0.7", "optim.options.lr_scale=2") == {"beta2": 0.7, "lr_scale": 2.0}
    assert create(compose([*DEMO, "optim=mine"]), OPTIMIZERS, "mine").options == (0.5, 3.0, 1)


@pytest.mark.parametrize(
    ("name", "betas"),
    [("adamw", (0.9, 0.98)), ("lion", (0.9, 0.99)), ("muon", (0.9, 0.98))],
)
def test_an_optimizer_has_its_published_settings_however_it_is_chosen(name, betas):
    for words in ([f"optim={name}"], [f"optim.kind={name}"]):
        built = create(compose([*DEMO, *words]), OPTIMIZERS, name)
        assert built.betas == betas
        assert getattr(built, "momentum", 0.95) == 0.95


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["mixing=my_halves", "mixing.options.shar=1"],
            "mixing.options.shar=1: there is no such option; nearest: share; choose from share",
        ),
        (["mixing=my_halves", "mixing.options.share=a"], "mixing.options.share=a: it takes a number; the default is 0.5"),
        (["mixing=my_halves", "mixing.options.side=up"], "mixing.options.side=up: it takes left or right; the default is left"),
        (["mixing=cutmix", "mixing.options.min_side=1"], "mixing.options.min_side=1: this option has its own key; set mixing.min_side"),
        (["optim.options.betaa=1"], "optim.options.betaa=1: there is no such option; choose from optim.beta1, optim.beta2, optim.eps"),
        (["optim=whole", "optim.beta2=0.5"], "optim.beta2=0.5: it takes a whole number; the default is 0"),
        (["optim=demanding"], "optim.options.steps is not set: optim.kind=demanding needs it; it takes a whole number"),
        (["evaluation.options.retrieval=3"], "evaluation.options.retrieval=3: it takes options by name, as in"),
        (["loss.terms=[term]", "loss.options.term=3"], "loss.options.term=3: it takes options by name, as in loss.options.term.NAME=VALUE"),
        (
            ["evaluation=[gap]", "evaluation.options.gap.caps=3"],
            "evaluation.options.gap.caps=3: there is no such option; choose from evaluation.batch_size, capt",
        ),
        (["evaluation.options.retrieval.num_workers=7"], "own key; set data.num_workers"),
        (["evaluation.options.retrieval.batch_size=7"], "own key; set evaluation.batch_size"),
        (["evaluation.options.retrieval.num_folds=7"], "own key; set evaluation.retrieval_folds"),
        (["evaluation.options.retrieval.name=x"], "there is no such option"),
        (["evaluation.tasks=[retrieval,gap,retrieval]"], "evaluation.tasks=[retrieval,gap,retrieval]: names retrieval more than once"),
        (["loss.terms=[term,term]"], "loss.terms=[term,term]: names term more than once"),
        (
            ["loss.terms=term"],
            f"loss.terms=term: loss.terms takes a list, each item {names(LOSS_TERMS)}a plugin's loss term; the default is []",
        ),
        (["mixing={kind: [a]}"], f"mixing.kind takes none, {names(MIXERS)}a plugin's mixing strategy"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_does_not_fit_gets_one_message(words, message):
    (found,) = problems_of(*words)
    assert message in found


def test_a_literal_is_an_option_like_any_other():
    assert options(MIXERS, "my_halves", "mixing=my_halves", "mixing.options.side=right") == {"side": "right"}


def test_a_required_option_can_be_set():
    assert create(compose([*DEMO, "optim=demanding", "optim.options.steps=3"]), OPTIMIZERS, "demanding").options == (3,)


def test_a_sweep_leaves_an_option_of_a_plugin_out_where_no_entry_takes_it():
    my_halves, cutmix = sweep_jobs([*DEMO, "mixing=my_halves,cutmix", "mixing.options.share=0.3"])
    assert my_halves.cfg.mixing.options == {"share": 0.3} and cutmix.cfg.mixing.options == {}
    with pytest.raises(ConfigError, match=r"mixing\.options\.shar=0\.3: there is no such option"):
        sweep_jobs([*DEMO, "mixing=my_halves,cutmix", "mixing.options.shar=0.3"])


def refusal(cfg: RootConfig) -> str:
    with pytest.raises(RunError) as caught, claimed(cfg):
        pass
    return str(caught.value)


@pytest.fixture
def run_dir(tmp_path):
    """Starts a run with some words, so that it can be resumed."""

    def start(*words: str):
        cfg = compose([*DEMO, *words, f"run_dir={tmp_path}"])
        (tmp_path / "checkpoints/step-00000001.ckpt").mkdir(parents=True)
        write_config(cfg)
        return cfg

    return start


def resumes(cfg: RootConfig) -> bool:
    """Whether the folder's configuration is the same; that its checkpoint is damaged comes later."""
    return "all of its checkpoints are damaged" in refusal(cfg)


@pytest.mark.parametrize("word", ["share=0.5", "side=left", "size=small"])
def test_an_option_typed_at_its_default_is_the_same_run(word, run_dir, tmp_path):
    run_dir("mixing=my_halves")
    words = [*DEMO, "mixing=my_halves", f"run_dir={tmp_path}"]
    assert resumes(compose([*words, f"mixing.options.{word}"]))
    assert "mixing.options.share=0.3 here, 0.5 there. Choose" in refusal(compose([*words, "mixing.options.share=0.3"]))


def test_a_run_of_before_the_optimizers_own_defaults_resumes(run_dir, tmp_path):
    saved = run_dir("optim.beta1=0.9", "optim.beta2=0.98", "optim.eps=1e-6")
    saved.optim.momentum = 0.9  # older versions wrote it for every optimizer
    write_config(saved)
    assert resumes(compose([*DEMO, f"run_dir={tmp_path}"]))
    assert "optim.beta2=0.9 here, 0.98 there. Choose" in refusal(compose([*DEMO, f"run_dir={tmp_path}", "optim.beta2=0.9"]))


def test_resuming_without_the_plugin_names_it(run_dir, tmp_path):
    run_dir("mixing=my_halves")
    del MIXERS._entries["my_halves"]
    ConfigStore.instance().repo.pop("mixing")
    for word in ("mixing=my_halves", "mixing.kind=my_halves"):
        (message,) = problems_of(word, f"run_dir={tmp_path}")
        assert message.endswith(f"{tmp_path}/config.yaml has plugins=[{__name__}]")


def test_help_lists_the_keys_that_work_and_the_plugins_of_a_folder_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "a_plugin", ModuleType("a_plugin"))
    experiment(tmp_path, "defaults: [demo]\nplugins: [added_by_help]\n")
    (tmp_path / "added_by_help.py").write_text(
        "from timix_pl.core.choices import CALLBACKS\n\n\n"
        "@CALLBACKS.register('of_a_folder')\ndef of_a_folder(*, size: int):\n    '''Mine.'''\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    listed = [" ".join(line.split()) for line in plugin_help(["--help", "--config-dir", str(tmp_path), "experiment=mine"]).splitlines()]
    for line in (
        "optim.beta2= [0.5]",
        "optim.options.lr_scale= [3]",
        "mixing.options.side= [left; left or right]",
        "evaluation.options.gap.captions_used= [1]",
        "evaluation.batch_size= [128]",
        "trainer.callbacks=of_a_folder Mine.",
        "trainer.options.of_a_folder.size= [must be set]",
    ):
        assert line in listed
    assert not [line for line in listed if "num_workers" in line or "options.batch_size" in line]
