"""The short form of ``make soak``, with processes that are forks."""

import re

import pytest

from tests.preloaded import popen
from tests.soak.soak import main


def test_a_run_that_is_killed_again_and_again_trains_on_the_same_samples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--kills", "2", "--seed", "1"], popen) == 0
    said = capsys.readouterr().out
    assert "2 kills of a run of" in said
    assert re.search(r"pairs: \d\d+, 0 lost, 0 twice", said) and re.search(r"region images: \d\d+, 0 lost, 0 twice", said)
