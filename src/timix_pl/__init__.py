"""Vision-language pre-training with text-aware image mixing (TiMix).

``timix_pl.load(path)`` gives a trained model: see :func:`timix_pl.runs.load.load`.
"""

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``load`` comes with torch and lightning, which ``import timix_pl`` alone does without."""
    if name == "load":
        return importlib.import_module("timix_pl.runs.load").load
    raise AttributeError(f"module 'timix_pl' has no attribute '{name}'")
