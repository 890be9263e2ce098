"""The folder ``conf``: ``config.yaml``, and one folder of YAML files for each group of choices."""

from pathlib import Path


def conf_dir() -> Path:
    """The folder ``conf`` inside the installed package, or that of the repository in an editable install."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parents[1] / "conf"


def groups() -> dict[str, list[str]]:
    """The choices of timix-pl itself: each group, such as ``mixing``, with its names."""
    folders = sorted(path for path in conf_dir().iterdir() if path.is_dir())
    return {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in folders}
