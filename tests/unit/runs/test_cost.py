"""What dry_run says of a run's cost, before anything is touched."""

import functools
import re

import pytest
import torch

from tests.tiny import write_shards
from timix_pl.config.compose import compose
from timix_pl.core.choices import OPTIMIZERS
from timix_pl.core.errors import ConfigError, ModelError
from timix_pl.data.shards.local_tar import write_manifest
from timix_pl.runs import cost
from timix_pl.runs.dry_run import dry_run
from timix_pl.training.step_cost import count_flops

DEMO = ["experiment=demo", "trainer.peak_tflops=1"]


@pytest.fixture(autouse=True)
def counted_once(monkeypatch):
    """Of the same model and the same parts of a step, FLOPs are counted once for all tests."""
    monkeypatch.setattr(cost, "count_flops", lambda workload: _flops(_Described(workload)))


class _Described:
    """A workload that equals others of the same description."""

    def __init__(self, workload):
        self.workload, facts = workload, {name: value for name, value in vars(workload).items() if name not in ("model", "mixer", "item")}
        own = {name: getattr(workload.model, name, None) for name in ("pta_grad", "mixing_level", "patch_dropout")}
        self.text = f"{workload.model} {type(getattr(workload, 'mixer', None))} {facts} {own}"

    def __eq__(self, other):
        return self.text == other.text

    def __hash__(self):
        return hash(self.text)


@functools.cache
def _flops(described):
    return count_flops(described.workload)


def said(*words):
    return dry_run(compose(list(words))).partition("\nParameters\n")[2]


@functools.cache
def of_the_demo():
    return said(*DEMO)


def figures(text, unit):
    return {name.strip(): float(value.replace(",", "")) for name, value in re.findall(rf"^  (.*?) +([\d,.]+) {unit}$", text, re.M)}


def test_memory_is_that_of_the_model_and_of_a_rank_s_part_of_the_step():
    one, two = (figures(said(*DEMO, f"trainer.devices={devices}"), "GB") for devices in (1, 2))
    num_parameters = sum(map(int, re.findall(r"(?:tower|head) +([\d,]+)", of_the_demo().replace(",", ""))))
    assert one["weights"] == one["gradients"] == pytest.approx(num_parameters * 4e-9, abs=1e-3)
    assert one["optimizer state (adamw)"] == pytest.approx(num_parameters * 8e-9, abs=1e-3)
    assert one["together"] == pytest.approx(sum(one.values()) - one["together"], abs=3e-3)
    assert two["weights"] == one["weights"]
    kept = "activations kept for the backward pass"
    assert two[kept] == pytest.approx(one[kept] / 2, rel=0.02) and one[kept] > 0.1


STATE = {  # least and most bytes per parameter
    "adamw": (8, 8),
    "lion": (4, 4),
    "sgd": (4, 4),
    "muon": (4, 8),  # the matrices of the blocks have one moment, all other weights have two
    "adafactor": (0, 0.2),
}


@pytest.mark.parametrize("kind", OPTIMIZERS.names())
def test_each_optimizer_has_a_state_of_its_own_size(kind):
    words = ["trainer.peak_tflops=1", "data=scenes", "model=tiny", "trainer.max_steps=1", f"optim={kind}"]
    sizes = figures(said(*words), "GB")
    per_parameter = sizes.get(f"optimizer state ({kind})", 0) / (sizes["weights"] / 4)
    assert kind in STATE, "add the size of the optimizer's state to STATE"
    least, most = STATE[kind]
    assert 0.97 * least <= per_parameter <= 1.03 * most


def test_a_moving_average_takes_the_memory_of_the_weights_that_are_trained():
    plain, averaged = figures(of_the_demo(), "GB"), figures(said(*DEMO, "optim.ema=0.99"), "GB")
    assert averaged.pop("moving average of the weights") == plain["gradients"] > 0
    assert averaged.pop("together") == pytest.approx(plain.pop("together") + plain["gradients"], abs=2e-3) and averaged == plain


def test_shards_share_optimizer_state_and_average():
    words = [*DEMO, "optim.ema=0.99", "trainer.devices=2"]
    copies, shards = figures(said(*words), "GB"), figures(said(*words, "trainer=fsdp"), "GB")
    for name in ("optimizer state (adamw)", "moving average of the weights"):
        assert shards[name] == pytest.approx(copies[name] / 2, abs=1e-3)


def test_towers_that_the_optimizer_cannot_do_with_are_refused():
    cfg = compose([*DEMO, "optim=muon"])
    cfg.model.architecture, cfg.pta.block = "test-timm-convnext", 1
    with pytest.raises(ModelError, match=r"optim\.kind=muon: the image tower, TimmModel, has no blocks that could be counted"):
        dry_run(cfg)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pta.first_samples=61440"], r"pta.first_samples=61440, mixing.stop_frac=1: the strategy starts after 61440 samples"),
        (["pta.first_frac=0.6", "mixing.stop_frac=0.5"], r"pta.first_frac=0.6, mixing.stop_frac=0.5: .* ends after 30720; lower pta.first"),
    ],
)
def test_mixing_that_would_end_before_it_starts_is_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        said(*DEMO, *words)


def test_bf16_takes_less():
    fp32, mixed, pure = (figures(said(*DEMO, f"trainer.precision={name}"), "GB") for name in ("fp32", "bf16_mixed", "bf16_pure"))
    kept = "activations kept for the backward pass"
    assert pure[kept] < mixed[kept] < fp32[kept]
    assert pure["weights"] == pytest.approx(fp32["weights"] / 2, abs=1e-3) and mixed["weights"] == fp32["weights"]


def test_a_region_batch_in_every_second_step_costs_half():
    each, second = (figures(said(*DEMO, f"pta.every_n_steps={n}"), "GFLOP") for n in (1, 2))
    for name in ("region images up to the PTA block", "phrases, at most"):
        assert second[name] == pytest.approx(each[name] / 2, abs=1e-3)
    assert second["image and caption"] == each["image and caption"]


def test_time_follows_from_peak_and_flops():
    """480 steps of 128 pairs at 15% and 40% of 1 TFLOP/s."""
    text = said(*DEMO, "trainer.accelerator=gpu")
    flops = figures(text, "GFLOP")["together"] * 1e9
    slow, fast = (int(number.replace(",", "")) for number in re.search(r"([\d,]+) to ([\d,]+) samples/s", text).groups())
    assert (slow, fast) == (pytest.approx(0.15e12 / flops, rel=0.05), pytest.approx(0.4e12 / flops, rel=0.05))
    assert "480 steps of 128 pairs, 3.84 epochs of 16,000 pairs" in text
    assert "assumed; nothing of the run was tried" in text


def test_on_a_cpu_its_own_speed_is_measured(monkeypatch):
    monkeypatch.setattr(cost, "_cpu_flops", lambda num_threads: 100e9)
    assert "the 100 GFLOP/s that this CPU just reached" in said("experiment=demo")
    monkeypatch.undo()
    threads = torch.get_num_threads()
    assert 1e8 < cost._cpu_flops(1, size=128, seconds=0.02) < 1e13
    assert torch.get_num_threads() == threads


def test_of_an_unknown_gpu_no_speed_is_claimed():
    text = said("experiment=demo", "trainer.accelerator=gpu")
    assert "give trainer.peak_tflops" in text and "samples/s" not in text


@pytest.mark.parametrize("indexed", [True, False])
def test_the_length_of_a_run_in_epochs_is_known_from_a_manifest(tmp_path, indexed, monkeypatch):
    write_shards(tmp_path / "s", 12)
    write_shards(tmp_path / "t", 8)
    if indexed:
        write_manifest(tmp_path / "s")
        write_manifest(tmp_path / "t")
    else:
        (tmp_path / "t" / "manifest.json").unlink()
    before, read, look = sorted(tmp_path.rglob("*")), [], cost.read_manifest
    monkeypatch.setattr(cost, "read_manifest", lambda folder: read.append(folder.name) or look(folder))
    shards = f"data.train_shards=[{tmp_path / 's'},{tmp_path / 't'}]"
    text = said(
        "model=tiny",
        "mixing=none",
        "pta.enabled=false",
        "data.global_batch_size=4",
        "trainer.max_epochs=3",
        "trainer.peak_tflops=1",
        shards,
    )
    assert ("15 steps of 4 pairs, 3 epochs of 20 pairs" in text) == indexed
    assert ("the number of steps is known only if the shards are on a local disk" in text) == (not indexed)
    assert sorted(tmp_path.rglob("*")) == before and read == ["s", "t"]


def test_offloaded_weights_and_optimizer_state_lie_in_the_memory_of_the_cpu():
    words = [*DEMO, "trainer=fsdp", "trainer.devices=2"]
    plain, (device, _, cpu) = said(*words), said(*words, "trainer.cpu_offload=true").partition("CPU memory of a rank, trainer.cpu_offload")
    states = ["weights", "gradients", "optimizer state (adamw)"]
    kept = "activations kept for the backward pass"
    assert figures(device, "GB") == {name: figures(plain, "GB")[kept] for name in (kept, "together")}
    cpu, plain = figures(cpu, "GB"), figures(plain, "GB")
    assert [cpu[name] for name in states] == [plain[name] for name in states]
    assert cpu["together"] == pytest.approx(plain["together"] - plain[kept], abs=3e-3)


def test_where_a_step_does_not_fit_the_largest_chunk_that_does_is_advised(monkeypatch):
    together = figures(of_the_demo(), "GB")["together"]
    monkeypatch.setattr(cost, "_device_gb", lambda cfg: together / 2)
    text = said(*DEMO)
    advised = re.search(r"more than the ([\d.]+) GB that a device has here; set trainer\.micro_batch_size=(\d+), for ([\d.]+) GB", text)
    chunk, takes = int(advised[2]), float(advised[3])
    assert float(advised[1]) == pytest.approx(together / 2, abs=0.06)
    with_it = said(*DEMO, f"trainer.micro_batch_size={chunk}")
    assert "more than" not in with_it and figures(with_it, "GB")["together"] == pytest.approx(takes, abs=0.06)
    assert figures(said(*DEMO, f"trainer.micro_batch_size={2 * chunk}"), "GB")["together"] > together / 2
    monkeypatch.setattr(cost, "_device_gb", lambda cfg: 1e-3)
    assert "no trainer.micro_batch_size is small enough; try trainer.gradient_checkpointing=true" in said(*DEMO)
    monkeypatch.setattr(cost, "normalises_over_the_batch", lambda model: True)
    text = said(*DEMO)
    assert "more than" in text and "micro_batch_size" not in text


def test_what_slurm_is_asked_for_is_shown():
    words = ["launcher=slurm", "trainer.num_nodes=2", "trainer.devices=2", "launcher.partition=big", "launcher.time_min=90"]
    assert "Requested from SLURM: 2 nodes, each with 2 tasks and 2 GPUs; time limit: 90 minutes, partition: big" in said(
        *DEMO, *words, "trainer.accelerator=gpu"
    )
    more = [
        "launcher.cpus_per_task=6",
        "launcher.mem_gb=100",
        "launcher.sbatch=[--exclusive]",
        "trainer.num_nodes=1",
        "trainer.accelerator=cpu",
    ]
    text = said(*DEMO, *words, *more)
    assert "Requested from SLURM: 1 node, each with 2 tasks; time limit: 90 minutes, partition: big, CPU cores per task: 6" in text
    assert "memory per node: 100 GB, further: --exclusive" in text
    assert "SLURM" not in of_the_demo()


OF_A_TASK = {
    "vqa": ["task=vqa", "vqa.dim=32", "vqa.heads=2", "vqa.kind=both", "vqa.num_answers=50", "tune.towers=last"],
    "captioning": ["task=captioning", "captioning.vocab_size=600", "captioning.dim=16", "captioning.heads=2", "captioning.max_length=12"],
}


def said_of_a_task(task, *words):
    words = ["model=tiny", "data.train_shards=s", "trainer.max_steps=30", "data.global_batch_size=32", "trainer.peak_tflops=1", *words]
    return said(*OF_A_TASK[task], *words)


@functools.cache
def of_questions():
    return said_of_a_task("vqa")


def headings(text):
    """The lines that are not indented, up to the first figure in them."""
    return [re.split(r"[:\d]", line)[0].strip() for line in text.splitlines() if not line.startswith(" ")]


@pytest.mark.parametrize("task", OF_A_TASK)
def test_a_task_costs_are_told_in_the_rows_and_the_order_of_pre_training(task):
    text = of_questions() if task == "vqa" else said_of_a_task(task)
    assert [line.replace("pair", "image") for line in headings(of_the_demo())] == headings(text)
    gigabytes = figures(text, "GB")
    assert list(gigabytes) == [*figures(of_the_demo(), "GB")]
    tuned = int(re.search(r"trained among them +([\d,]+)\nPatch grid", text)[1].replace(",", ""))
    assert gigabytes["gradients"] == pytest.approx(4e-9 * tuned, abs=1e-3) and gigabytes["weights"] > gigabytes["gradients"]
    assert gigabytes["optimizer state (adamw)"] == pytest.approx(8e-9 * tuned, abs=1e-3)
    assert "30 steps of 32 images" in text and "samples/s without waiting for data" in text and "in all, evaluations" in text


def test_the_items_of_an_image_are_told():
    assert [*figures(of_questions(), "GFLOP")] == ["image", "at most 4 questions, 16 tokens, 4 choices", "together"]
    assert re.search(r"  at most 4 questions, 16 tokens +[\d.]+ GFLOP", said_of_a_task("vqa", "vqa.kind=open"))
    one, three = (figures(said_of_a_task("captioning", f"tune.items_per_image={n}"), "GFLOP") for n in (1, 3))
    assert three["at most 3 captions of 12 tokens"] == pytest.approx(3 * one["at most 1 caption of 12 tokens"], abs=2e-3)
    assert three["image"] == one["image"]


def test_a_chunk_of_images_that_fits_is_advised_for_a_task_too(monkeypatch):
    together = figures(of_questions(), "GB")["together"]
    monkeypatch.setattr(cost, "_device_gb", lambda cfg: 0.6 * together)
    assert re.search(r"has here; set trainer\.micro_batch_size=\d+, for", said_of_a_task("vqa"))


@pytest.mark.parametrize("task", ["pretrain", "vqa"])
def test_where_flops_cannot_be_counted_a_sentence_says_so(task, monkeypatch):
    def fails(*_, **__):
        raise NotImplementedError("aten::odd has no shape\n  File ...")

    monkeypatch.setattr(cost, "count_flops", fails)
    text = said(*DEMO) if task == "pretrain" else said_of_a_task(task)
    assert "FLOPs, memory and speed are not estimated: PyTorch cannot count them for timix-tiny (aten::odd has no shape)" in text
    assert "Patch grid" in text and f"steps of {128 if task == 'pretrain' else 32}" in text and "GB" not in text
