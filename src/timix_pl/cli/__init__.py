"""The commands. They parse arguments and print; the work is done in ``timix_pl.runs`` and below."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# OpenMP reads this when PyTorch is imported. By default, PyTorch's threads spin for long while they wait for each other, which makes a step
# many times slower when other processes use the same cores. On idle cores, 10,000 spins are enough.
