"""``make bench-gpu`` on the smallest shapes, so that it runs when there is a GPU at last."""

import argparse
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu
from tests.gpu.devices import DEVICES
from tests.preloaded import popen


@pytest.fixture
def settings_as_before():
    """open_clip's side allows TF32, which the other tests shall not have."""
    before = torch.backends.cuda.matmul.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", gpu.VARIANTS)
def test_every_row_can_be_measured(name, device, settings_as_before):
    variant = gpu.VARIANTS[name]
    if device == "cpu":
        variant = variant._replace(scale=min(variant.scale, 4))  # 4 parts of a batch are accumulated as 16 are
    row = gpu.measure(variant, "timix-tiny", 4, device=device, num_steps=2, backend="inductor" if device == "cuda" else "eager")
    assert row.batch_size == 4 * variant.scale
    assert row.samples_per_s > 0 and row.peak_gb > 0
    assert (row.mfu is None) == (device == "cpu")


def run_as_fork(command, *, capture_output, text, check):
    """``subprocess.run`` without the seconds in which a new process imports PyTorch."""
    with popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=text) as process:
        out, err = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def test_rows_are_compared_with_the_row_they_name(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "subprocess", SimpleNamespace(run=run_as_fork))
    options = argparse.Namespace(device="cpu", num_steps=2, backend="eager", rows="AdamW|^timix-pl$")
    gpu.ladder("timix-tiny", 4, options)
    _, _, theirs, ours = capsys.readouterr().out.splitlines()
    assert theirs.startswith("open_clip, fused AdamW ") and "x of" not in theirs
    assert ours.startswith("timix-pl ") and ours.endswith("x of open_clip, fused AdamW")
    assert all(variant.beside is None or variant.beside in gpu.VARIANTS for variant in gpu.VARIANTS.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_benchmark_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    gpu.main()
    assert capsys.readouterr().out == "skipped: no GPU here\n"
