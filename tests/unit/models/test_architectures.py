"""The names of architectures, known without importing open_clip."""

import subprocess
import sys


def test_they_are_those_that_open_clip_knows():
    """In a process of its own, since tests register further ones."""
    code = """import timix_pl.models.open_clip, open_clip
from timix_pl.core.architectures import known_architectures
print(set(known_architectures()) ^ set(open_clip.list_models()), "timix-tiny" in known_architectures())"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set() True\n"
