"""Vision-language pre-training with text-aware image mixing (TiMix).

``timix_pl.load(path)`` gives a trained model: see :func:`timix_pl.runs.load.load`.
"""

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import ``load`` on first use, so that ``import timix_pl`` does not import torch and lightning."""
    if name == "load":
        return importlib.import_module("timix_pl.runs.load").load
    raise AttributeError(f"module 'timix_pl' has no attribute '{name}'")
