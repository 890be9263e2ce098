"""Where timix-pl's own architectures are (JSON files in open_clip's format), and the names of all architectures."""

import importlib.util
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "models" / "architectures"


def known_architectures() -> list[str]:
    """Every name that ``model.architecture`` accepts, sorted."""
    # Read from the file names, because importing open_clip takes seconds.
    open_clip = importlib.util.find_spec("open_clip")
    assert open_clip is not None and open_clip.origin is not None
    return sorted(file.stem for folder in (Path(open_clip.origin).parent / "model_configs", FOLDER) for file in folder.glob("*.json"))
