"""What a logger is told about a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """What a logger is told about a run.

    A logger is a context manager, a function of a ``LoggedRun`` and of options by keyword. It yields one of Lightning's loggers, or None.
    It is opened only on rank 0.

    Args:
        run_dir: the run's folder.
        name: what the run is called.
        step: the run goes on after this step; 0 for a run that begins.
        config: the configuration as nested dictionaries of numbers and texts.
        config_text: the same as YAML.
    """

    run_dir: Path
    name: str
    step: int
    config: dict[str, Any]
    config_text: str
