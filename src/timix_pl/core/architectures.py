"""Architectures of timix-pl, as files of open_clip's form, and the names of all that there are."""

import importlib.util
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "models" / "architectures"


def known_architectures() -> list[str]:
    """Every name that ``model.architecture`` takes. Read from files: importing open_clip to ask it takes seconds."""
    open_clip = importlib.util.find_spec("open_clip")
    assert open_clip is not None and open_clip.origin is not None
    return sorted(file.stem for folder in (Path(open_clip.origin).parent / "model_configs", FOLDER) for file in folder.glob("*.json"))
