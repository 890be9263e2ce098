"""Speed, shares of the time, memory and MFU, as they are logged."""

import time

import pytest
import torch

from tests.tiny import GRID, tiny_model
from tests.unit.training.running import GLOBAL_BATCH_SIZE, AtEachStep, fit, ready_batches, training_module
from timix_pl.core.timing import Stopwatch
from timix_pl.mixing.strategies.timix import TiMix
from timix_pl.training.callbacks.mixing import MixingCallback
from timix_pl.training.callbacks.throughput import ThroughputCallback, peak_memory_bytes
from timix_pl.training.peak_flops import peak_flops


def rows_of(callback, *others, num_steps=4, log_every_n_steps=2):
    model = tiny_model()
    module = training_module(model, num_steps=num_steps, log_every_n_steps=log_every_n_steps)
    mixing = MixingCallback(TiMix(GRID), ratio=0.5, group_size=4)
    return fit(module, ready_batches(model, num_steps), callbacks=[mixing, callback, *others])


def slow_down_optimizer(module):
    if module.global_step == 0:
        module.optimizers().optimizer.register_step_pre_hook(lambda *_: time.sleep(0.2))


def test_mfu_is_the_flops_of_what_the_steps_held_over_time_and_peak():
    """8 pairs, 4 mixed, 3 region images, 5 phrases a step; with the peak of 1 FLOP/s, MFU times time is their number."""
    rows = rows_of(ThroughputCallback(1.0, {"pair": 1000.0, "mixed_image": 100.0, "region_image": 10.0, "phrase": 1.0}))
    assert [row["step"] for row in rows] == [1, 2, 4]
    for row, num_steps in zip(rows, (1, 1, 2), strict=True):
        seconds = num_steps * GLOBAL_BATCH_SIZE / row["train/samples_per_s"]
        assert row["train/mfu"] * seconds == pytest.approx(num_steps * (8000 + 400 + 30 + 5), rel=1e-5)


def test_without_a_known_peak_there_is_no_mfu_and_one_rank_has_no_collectives():
    rows = rows_of(ThroughputCallback())
    assert not any(name in row for row in rows for name in ("train/mfu", "train/collectives_frac"))
    assert all(row["train/samples_per_s_per_device"] == row["train/samples_per_s"] for row in rows)


def test_the_share_of_the_optimizer_is_measured_and_that_of_evaluations_is_not():
    slow = AtEachStep(before=slow_down_optimizer, after=lambda module: time.sleep(0.3))
    rows = rows_of(ThroughputCallback(), slow, num_steps=3, log_every_n_steps=1)
    for row in rows[1:]:
        seconds = GLOBAL_BATCH_SIZE / row["train/samples_per_s"]
        assert 0.2 <= row["train/optimizer_frac"] * seconds < seconds
        assert 0 <= row["train/data_wait_frac"] < 0.5


def test_peak_memory_of_a_process_is_its_resident_memory():
    before = peak_memory_bytes(torch.device("cpu"))
    assert 50e6 < before < 200e9
    ballast = torch.ones(150_000_000, dtype=torch.uint8)
    now = peak_memory_bytes(torch.device("cpu"))
    assert now >= before and now >= len(ballast)


class FakeEvent:
    """A CUDA event on a GPU that has worked up to ``reached_ms``."""

    clock_ms, reached_ms = 0.0, 0.0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.at_ms = FakeEvent.clock_ms

    def query(self):
        return self.at_ms <= FakeEvent.reached_ms

    def synchronize(self):
        raise AssertionError("nothing may wait for the device")

    def elapsed_time(self, end):
        assert end.query()
        return end.at_ms - self.at_ms


def test_on_a_gpu_time_is_read_when_the_gpu_has_passed_it_and_nothing_waits(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    watch, gpu = Stopwatch(), torch.device("cuda")
    watch.on = True
    for length_ms in (100, 300):
        with watch.running(gpu):
            FakeEvent.clock_ms += length_ms
    assert watch.take() == 0
    FakeEvent.reached_ms = 100
    assert watch.take() == pytest.approx(0.1)
    FakeEvent.reached_ms = 400
    assert watch.take() == pytest.approx(0.3)
    assert watch.take() == 0


def test_a_stopwatch_that_is_off_counts_nothing():
    watch = Stopwatch()
    with watch.running(torch.device("cpu")):
        time.sleep(0.01)
    assert watch.take() == 0


@pytest.mark.parametrize(
    ("name", "bf16", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", True, 989.4),
        ("NVIDIA H100 80GB HBM3", False, 66.9),
        ("NVIDIA H100 PCIe", True, 756.0),
        ("NVIDIA H100 NVL", True, 835.0),
        ("NVIDIA H200", True, 989.4),
        ("NVIDIA A100-SXM4-80GB", True, 312.0),
        ("NVIDIA A10", True, 125.0),
        ("NVIDIA L40S", True, 362.0),
        ("NVIDIA GeForce RTX 4090", True, None),
        ("Tesla V100-SXM2-16GB", True, None),
    ],
)
def test_the_peak_of_a_gpu_is_that_of_its_name(name, bf16, tflops, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda"), bf16=bf16) == (None if tflops is None else pytest.approx(tflops * 1e12))
    assert peak_flops(torch.device("cpu"), bf16=bf16) is None
