"""The code of docs/plugins.md, as the file and the folder that its commands need."""

import re
from pathlib import Path

from tests.commands import REPOSITORY

PAGE = REPOSITORY / "docs/plugins.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def write_tutorial(folder: Path) -> None:
    """``my_timix.py``, and ``my_conf`` with an experiment."""
    (folder / "my_timix.py").write_text("\n\n".join(blocks("python")))
    (experiment,) = blocks("yaml")
    path = folder / experiment.partition("\n")[0].removeprefix("# ")
    path.parent.mkdir(parents=True)
    path.write_text(experiment.partition("\n")[2])


def commands() -> list[str]:
    return [line for block in blocks("bash") for line in block.splitlines()]
