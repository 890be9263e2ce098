"""The console scripts as files that a shell finds, whether or not the package is installed where the tests run."""

import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
SCRIPTS: dict[str, str] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]


def write_scripts(folder: Path) -> Path:
    """One executable for each script of ``pyproject.toml``."""
    folder.mkdir(exist_ok=True)
    for name, target in SCRIPTS.items():
        module, function = target.split(":")
        script = folder / name
        script.write_text(
            f"#!{sys.executable}\nimport os, sys\nsys.path[:0] = [{str(REPOSITORY / 'src')!r}, {str(REPOSITORY)!r}]\n"
            "os.environ['PYTHONPATH'] = os.pathsep.join(sys.path[:2])  # for processes that it starts\n"
            f"from {module} import {function}\nif __name__ == '__main__':\n    sys.exit({function}())\n"
        )
        script.chmod(0o755)
    return folder
