"""Components do not know the configuration: what they say names their own parameters, and building puts the keys in their place."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import REPOSITORY
from timix_pl.building.keys import DECODER, FINE_TUNED, RUN
from timix_pl.config.schema_options import schema_options
from timix_pl.core.choices import EVALUATORS, LOGGERS

SOURCE = REPOSITORY / "src" / "timix_pl"
ROOMS = ("models", "mixing", "losses", "metrics", "optim", "data", "evaluation", "training")
KEYS = re.compile(r"(?<![\w./])(" + "|".join(re.escape(key) for key in schema_options() if "." in key) + r")(?![\w/])")
STREAMS = ("data.train_shards", "data.region_shards")
"""Their names in the audit files, which are no messages."""


def talks_to_a_run(node: ast.AST) -> bool:
    """An evaluator's ``gather``, which asks the run for options by their keys, and the table of what it asks for."""
    if isinstance(node, ast.AnnAssign):
        return isinstance(node.target, ast.Name) and node.target.id == "gathered"
    return isinstance(node, ast.FunctionDef) and any(ast.unparse(arg.annotation or arg) == "RunToEvaluate" for arg in node.args.args)


def texts(node: ast.AST) -> Iterator[ast.Constant]:
    """All texts in the code below a node that are not docstrings."""
    for child in ast.iter_child_nodes(node):
        is_docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child
        elif not is_docstring and not talks_to_a_run(child):
            yield from texts(child)


@pytest.mark.parametrize("room", ROOMS)
def test_no_text_in_a_room_of_components_names_a_key(room: str) -> None:
    paths = sorted((SOURCE / room).rglob("*.py"))
    found = [(path, text) for path in paths for text in texts(ast.parse(path.read_text(encoding="utf-8"))) if KEYS.search(text.value)]
    assert paths
    assert [
        f"{path.relative_to(SOURCE)}:{text.lineno}: {text.value}"
        for path, text in found
        if not (path == SOURCE / "training/callbacks/audit.py" and text.value in STREAMS)
    ] == []


MARKS = re.compile(r"`(\w+(?:\(\))?)[=`]")


def test_every_parameter_that_a_message_marks_has_a_key() -> None:
    tables = [RUN, FINE_TUNED, DECODER, *(EVALUATORS[name].gathered for name in EVALUATORS.names())]
    known = {name.partition("=")[0] for table in tables for name in table}
    known |= {option for registry in (EVALUATORS, LOGGERS) for name in registry.names() for option in registry.options(name)}
    code = [ast.parse(path.read_text(encoding="utf-8")) for room in ROOMS for path in (SOURCE / room).rglob("*.py")]
    marked = {name for node in code for text in texts(node) for name in MARKS.findall(text.value)}
    assert {"block", "max_image_px", "captions_per_image", "offline"} <= marked and marked - known == set()


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    code = """
class Evaluation:
    gathered: ClassVar = {"one": "pta.block"}

    @classmethod
    def gather(cls, run: RunToEvaluate):
        raise LeftOut("data.val_shards is not set")

    def run(self):
        "Docstrings may name pta.block."
        raise ModelError(f"pta.block={self.block}: this tower has {self.depth} blocks")
"""
    assert [text.value for text in texts(ast.parse(code)) if KEYS.search(text.value)] == ["pta.block="]
