"""What the commands tell PyTorch's threads, before it is imported."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(("set_before", "then"), [(None, "10000"), ("5", "5")])
def test_threads_spin_a_little_unless_the_user_says_otherwise(set_before, then):
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    environment |= {"GOMP_SPINCOUNT": set_before} if set_before else {}
    code = "import sys, os, timix_pl.cli.train; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == f"{then} False\n"
