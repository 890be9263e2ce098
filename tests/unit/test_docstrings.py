"""Examples in docstrings give what they show."""

import doctest
import importlib

import pytest

from tests.commands import REPOSITORY

PACKAGES = [REPOSITORY / "src" / "timix_pl", REPOSITORY / "data_pipelines"]
MODULES = [
    ".".join(path.relative_to(package.parent).with_suffix("").parts)
    for package in PACKAGES
    for path in sorted(package.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0 and found.failed == 0
