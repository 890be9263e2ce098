"""The facts about a run that loggers receive."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """The facts about a run that a logger receives.

    A registered logger is a context manager function that takes a ``LoggedRun`` and keyword-only options. It yields one of Lightning's
    loggers, or None. It is opened only on rank 0.

    Args:
        run_dir: the run's folder.
        name: the run's name.
        step: the run resumes after this step; 0: a new run.
        config: the configuration as nested dictionaries of plain values.
        config_text: the same as YAML.
    """

    run_dir: Path
    name: str
    step: int
    config: dict[str, Any]
    config_text: str
