"""The folder of YAML files: ``config.yaml`` and one folder for each group of choices."""

from pathlib import Path


def conf_dir() -> Path:
    """Inside the package when it was installed from a wheel, else the repository's."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parents[1] / "conf"


def groups() -> dict[str, list[str]]:
    """The choices that come with timix-pl: group to names, as in ``mixing=cutmix``."""
    folders = sorted(path for path in conf_dir().iterdir() if path.is_dir())
    return {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in folders}
