"""The wheel alone, away from the clone: the scripts run, and conf/ and the templates travel with the package."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.commands import REPOSITORY, SCRIPTS

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, REPOSITORY], check=True)
    (path,) = folder.glob("timix_pl-*.whl")
    return path


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory):
    """Run an installed script from a folder that knows nothing of the clone; libraries are those of this environment."""
    site = tmp_path_factory.mktemp("site")
    subprocess.run([*PIP, "install", "--no-deps", "--target", site, wheel], check=True)
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def run(command, *words):
        done = subprocess.run(
            [site / "bin" / command, *words], cwd=elsewhere, env=os.environ | {"PYTHONPATH": str(site)}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.site, run.elsewhere = site, elsewhere
    return run


def test_the_wheel_holds_both_packages_and_what_they_read(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    roots = {"timix_pl": "src/timix_pl", "data_pipelines": "data_pipelines", "timix_pl/conf": "conf"}
    expected = {
        f"{inside}/{path.relative_to(REPOSITORY / root)}"
        for inside, root in roots.items()
        for path in (REPOSITORY / root).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert expected <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"timix_pl", "data_pipelines"}


@pytest.mark.parametrize("command", SCRIPTS)
def test_every_script_is_installed(run, command):
    assert command in run(command, "--help")


def test_a_run_is_composed_from_the_installed_choices_and_a_folder_of_ones_own(run):
    own = run.elsewhere / "mine/experiment/small.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# @package _global_\ndefaults:\n  - demo\n  - _self_\nname: small\n")
    shown = run("timix-train", "dry_run=true", "--config-dir", "mine", "experiment=small")
    assert "name: small" in shown
    assert "run_dir: runs/small" in shown
    assert "kind: scenes" in shown


def test_the_installed_package_is_the_one_that_ran(run):
    code = "import timix_pl.config.conf_dir as folder; print(folder.conf_dir())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=run.elsewhere, env=os.environ | {"PYTHONPATH": str(run.site)}, capture_output=True, text=True
    )
    assert Path(done.stdout.strip()) == run.site / "timix_pl/conf"
