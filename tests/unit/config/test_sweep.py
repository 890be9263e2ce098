"""A sweep's jobs are known, and all their problems told, before the first job starts."""

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from timix_pl.config.sweep import check_sweep, jobs
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


def test_a_sound_sweep_passes():
    assert check_sweep(["experiment=demo", "mixing=timix,none", "mixing.ratio=0,1"]) is None


def test_problems_of_any_job_are_told_once():
    with pytest.raises(ConfigError) as caught:
        check_sweep(["experiment=demo", "mixing.ratio=0,1,2", "seed=0,1", "optim.lr=0"])
    assert sorted(problem.partition(":")[0] for problem in caught.value.problems) == ["mixing.ratio=2", "optim.lr=0"]


def test_an_override_that_cannot_be_read_is_named():
    with pytest.raises(ConfigError, match="expected KEY=VALUE"):
        check_sweep(["experiment=demo", "seed=0,1", "optim.lr"])


def test_jobs_in_one_process_cannot_have_several_devices():
    with pytest.raises(ConfigError, match=r"trainer\.devices=2: .*trainer\.devices=1, or start each job by itself"):
        check_sweep(["experiment=demo", "trainer.devices=2", "seed=0,1"])
