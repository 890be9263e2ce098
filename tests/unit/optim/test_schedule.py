"""Learning rate schedules, by hand."""

import pytest

from timix_pl.core.choices import SCHEDULES


def rates(points, kind="cosine", warmup=20, **options):
    schedule = SCHEDULES[kind](**options)
    return [schedule(consumed, peak=2.0, warmup=warmup, total=100) for consumed in points]


def test_cosine_rises_linearly_and_falls_by_half_a_cosine():
    assert rates([1, 10, 20, 60, 100]) == pytest.approx([0.1, 1.0, 2.0, 1.0, 0.0])
    assert rates([40], min_lr=0.4) == pytest.approx([0.4 + 1.6 * (1 + 2**-0.5) / 2])  # a quarter of the way
    assert rates([100], min_lr=0.4) == pytest.approx([0.4])


def test_constant_stays():
    assert rates([10, 20, 99, 100], kind="constant") == pytest.approx([1.0, 2.0, 2.0, 2.0])


def test_a_cooldown_falls_linearly_over_the_last_samples():
    assert rates([20, 60, 80, 100], kind="constant_with_cooldown", cooldown_frac=0.4) == pytest.approx([2.0, 2.0, 1.0, 0.0])
    assert rates([80, 100], kind="constant_with_cooldown", cooldown_frac=0.4, min_lr=1.0) == pytest.approx([1.5, 1.0])
    assert rates([99, 100], kind="constant_with_cooldown", cooldown_frac=0.0) == pytest.approx([2.0, 2.0])


@pytest.mark.parametrize("kind", ["cosine", "constant", "constant_with_cooldown"])
def test_beyond_the_plan_the_rate_stays(kind):
    assert rates([101, 1000], kind=kind) == rates([100, 100], kind=kind)


def test_without_warmup_the_first_step_is_at_the_peak_and_all_warmup_works():
    assert rates([0], warmup=0) == [2.0]
    assert rates([50, 100], warmup=100) == pytest.approx([1.0, 2.0])
