import doctest

import pytest

from timix_pl.core import metric
from timix_pl.core.metric import Metric, Unit, describe, descriptions_in


def test_a_name_is_described_by_itself_before_a_pattern():
    declared = {"open/*": Metric(label="any, {}"), "open/reachable": Metric(label="reachable")}
    assert describe(declared, "open/reachable").label == "reachable"
    assert describe(declared, "open/how_many").label == "any, how many"
    assert describe(declared, "open/") is describe(declared, "opens/x") is describe(declared, "an/open/x") is None


def test_what_means_something_else_in_patterns_means_itself():
    assert describe({"a.b/*": Metric()}, "axb/c") is None
    assert describe({"a[b]/*": Metric()}, "a[b]/c") == Metric()


def test_there_is_no_other_unit():
    assert Metric("share").unit is Unit.share
    with pytest.raises(ValueError, match="percent"):
        Metric("percent")


def test_what_a_file_does_not_describe_is_asked_for():
    """Written by an earlier version, and in a way that only a later one knows."""
    entry = {"unit": "nats", "higher_is_better": False, "label": "cross-entropy", "chance": "", "unit_word": "", "group": "language"}
    content = {"metrics": dict.fromkeys(("a", "b", "c", "d"), 1.0)}
    content["descriptions"] = {"a": entry, "c": {"unit": "bits"}, "d": {"unit": "nats", "colour": "red"}}
    known = Metric(Unit.share, True)
    assert descriptions_in(content, {"b": known, "c": known}.get) == {
        "a": Metric(Unit.nats, False, "cross-entropy", group="language"),
        "b": known,
    }


def test_the_example_in_its_docstring_holds():
    assert doctest.testmod(metric).failed == 0 < doctest.testmod(metric).attempted
