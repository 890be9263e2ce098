"""A sweep's jobs are known, and all their problems told, before the first job starts."""

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from timix_pl.config.compose import compose
from timix_pl.config.schema import LauncherConfig, LoggerConfig, RootConfig
from timix_pl.config.sweep import Job, jobs, sweep_jobs, words_of_a_rank
from timix_pl.core.errors import ConfigError


@pytest.mark.parametrize(
    "overrides",
    [
        ["mixing.ratio=0,0.5,1"],
        ["mixing=timix,none", "seed=range(0,3)", "optim.lr=0.001"],
        ["evaluation.tasks=[retrieval,grounding]", "name=a,b"],
        ["seed=1"],
    ],
)
def test_the_jobs_are_those_that_hydra_makes(overrides):
    (expected,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(overrides), max_batch_size=None)
    assert jobs(overrides) == [list(job) for job in expected]


def test_each_job_has_a_folder_of_its_own_and_words_that_start_it_by_itself():
    made = sweep_jobs(["experiment=demo", "mixing=timix,none", "run_dir='runs/it\\'s'"])
    assert [job.cfg.run_dir for job in made] == ["runs/it's/0", "runs/it's/1"]
    assert [compose(job.in_run_dir()) for job in made] == [job.cfg for job in made]


@pytest.mark.parametrize(
    "words",
    [
        ["launcher=slurm", "trainer.devices=1", "launcher.partition=gpu", "launcher.setup=['a b']", "launcher.wait=true"],
        ["launcher=torchrun", "trainer.num_nodes=2", "launcher.rdzv_endpoint=a:1", "launcher.node_rank=1"],
    ],
)
def test_a_rank_takes_nothing_for_a_launcher_that_has_started_it(words):
    typed = ["experiment=demo", *words]
    rank, expected = compose(words_of_a_rank(typed)), compose(typed)
    assert rank.launcher == LauncherConfig()
    expected.launcher = rank.launcher
    assert rank == expected


@settings(deadline=None)
@given(st.text("ab\\'\"$ {}=,[]:/", min_size=1, max_size=12))
def test_a_folder_and_a_label_of_any_name_come_through(text):
    job = Job([], RootConfig(run_dir=f"{text}/0", logger=LoggerConfig(kind="wandb", label=text)))
    read = {override.key_or_group: override.value() for override in OverridesParser.create().parse_overrides(job.in_run_dir())}
    assert OmegaConf.to_container(OmegaConf.create(read), resolve=True) == {"run_dir": f"{text}/0", "logger.label": text}


def test_problems_of_any_job_are_told_once():
    with pytest.raises(ConfigError) as caught:
        sweep_jobs(["experiment=demo", "mixing.ratio=0,1,2", "seed=0,1", "optim.lr=0"])
    assert sorted(problem.partition(":")[0] for problem in caught.value.problems) == ["mixing.ratio=2", "optim.lr=0"]


def test_a_job_starts_without_the_options_that_it_has_no_use_for():
    vqa = ["task=vqa", "init=null", "model=tiny", "data.train_shards=x", "trainer.max_steps=9"]
    frozen, tuned = sweep_jobs([*vqa, "tune.towers=frozen,all", "tune.lr_scale=0.2"])
    assert "tune.lr_scale=0.2" not in frozen.words and "tune.lr_scale=0.2" in tuned.words
    assert [job.cfg.tune.lr_scale for job in (frozen, tuned)] == [0.1, 0.2]
    timix, cutmix = sweep_jobs(["experiment=demo", "mixing=timix,cutmix", "pta.batch_size=16"])  # pta.teacher is derived
    assert "pta.batch_size=16" in timix.words and "pta.batch_size=16" not in cutmix.words
    with pytest.raises(ConfigError, match=r"tune\.last_blocks=1.*choose tune\.towers=last"):
        sweep_jobs([*vqa, "tune.towers=frozen,all", "tune.last_blocks=1"])
    with pytest.raises(ConfigError, match=r"tune\.lr_scale=0\.2"):  # two jobs would be the same
        sweep_jobs([*vqa, "tune.towers=frozen,all", "tune.lr_scale=0.2,0.3"])


def test_an_override_that_cannot_be_read_is_named():
    with pytest.raises(ConfigError, match="expected KEY=VALUE"):
        sweep_jobs(["experiment=demo", "seed=0,1", "optim.lr"])


def test_hydras_own_launchers_are_refused():
    with pytest.raises(ConfigError, match=r"hydra/launcher=joblib: .*choose launcher=local, torchrun or slurm"):
        sweep_jobs(["experiment=demo", "hydra/launcher=joblib", "seed=0,1"])


def test_the_jobs_of_an_array_ask_slurm_for_the_same():
    sound = ["experiment=demo", "launcher=slurm", "trainer.devices=2"]
    assert len(sweep_jobs([*sound, "seed=0,1"])) == 2
    for differing in ("launcher.time_min=5,10", "trainer.devices=1,2"):
        with pytest.raises(ConfigError, match=r"a sweep is one job array.* one sweep for each value"):
            sweep_jobs([*sound, differing])
