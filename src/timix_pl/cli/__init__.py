"""The commands: thin fronts over ``timix_pl.config`` and the rooms below it."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# Read when PyTorch is imported. Its threads wait for each other by spinning, which makes a step many times slower where other work
# uses the cores too; 10,000 turns are enough where nothing else does.
