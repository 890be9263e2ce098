"""What the types cannot say: ranges, and options that contradict each other. Every message: key, value, rule, way out.

Only what the configuration alone decides is checked here, before a file or a GPU is touched. What depends on the data, the model or the
machine (whether a folder exists, whether the grid is large enough for the windows) is checked by those who build them.
"""

import math
import re
from collections.abc import Iterator, Set
from functools import reduce
from pathlib import Path
from typing import Any

from timix_pl.config.options import as_typed, nearest, schema_options
from timix_pl.config.ranges import RANGES
from timix_pl.config.schema import (
    Compute,
    DataKind,
    Lam,
    LauncherKind,
    MixingKind,
    RootConfig,
    ScheduleKind,
    Strategy,
    Targets,
    Task,
    TunedTowers,
    VqaKind,
)
from timix_pl.core.architectures import known_architectures

TASKS = ("retrieval", "zero_shot", "grounding", "carry_over", "linear_probe", "knn", "noise", "mutual_information", "vqa", "captioning")
SHARDS = ("train_shards", "val_shards", "region_shards", "zero_shot_shards", "grounding_shards", "probe_train_shards", "noise_shards")
LABELLED_SHARDS = ("zero_shot_shards", "probe_train_shards")
OF_PRETRAINING = (
    "data.region_shards", "data.max_phrases", "model.patch_dropout",
    "pta.weight", "pta.grad", "pta.negative_frac", "pta.caption_positive", "pta.first_samples", "pta.every_n_steps", "pta.batch_size",
    "mixing.ratio", "mixing.compute", "mixing.lam", "mixing.targets", "mixing.gamma", "mixing.warmup_frac", "mixing.stop_frac",
    "mixing.level", "mixing.group_size", "mixing.beta", "loss.negatives", "loss.tile_rows", "pictures.",
)  # fmt: skip
"""What neither describes a model nor plays a part in evaluations."""
OF_TORCHRUN = ("launcher.rdzv_endpoint", "launcher.node_rank")
OF_SLURM = tuple(key for key in schema_options() if key.startswith("launcher.") and key not in (*OF_TORCHRUN, "launcher.kind"))
OF_A_NEW_DECODER = tuple(f"captioning.{name}" for name in ("vocab_size", "dim", "layers", "heads", "dropout"))

USED: tuple[tuple[tuple[str, ...], str, tuple[Any, ...]], ...] = (
    (OF_PRETRAINING, "task", (Task.pretrain,)),
    (("tune.",), "task", (Task.vqa, Task.captioning)),
    (("vqa.",), "task", (Task.vqa,)),
    (("captioning.",), "task", (Task.captioning,)),
    (("tune.last_blocks",), "tune.towers", (TunedTowers.last,)),
    (("tune.lr_scale",), "tune.towers", (TunedTowers.last, TunedTowers.all)),
    (("vqa.num_answers",), "vqa.kind", (VqaKind.open, VqaKind.both)),
    (OF_A_NEW_DECODER, "captioning.decoder", (None,)),
    (OF_TORCHRUN, "launcher.kind", (LauncherKind.torchrun,)),
    (OF_SLURM, "launcher.kind", (LauncherKind.slurm,)),
)
"""Keys, or what they begin with; and the key that decides whether they are used, with the values at which they are."""


def problems(cfg: RootConfig) -> list[str]:
    """All that is wrong with a composed configuration, one message each; empty when it can be built."""
    ranks = (cfg.trainer.devices or 1) * cfg.trainer.num_nodes  # as far as known here; a machine may turn out to have more
    out_of_range = list(_ranges(cfg))
    if out_of_range:
        return out_of_range + list(_independent_of_numbers(cfg))
    return [*_independent_of_numbers(cfg), *batch_problems(cfg, ranks), *_mixing_numbers(cfg), *_schedules(cfg)]


def unused_options(cfg: RootConfig, typed: Set[str] = frozenset()) -> list[str]:
    """Options that were set and that nothing uses. What a file sets is no mistake where another choice was typed that switches it off.

    Args:
        typed: keys, and names of choices.
    """
    options, found = schema_options(), []
    changed = [key for key, option in options.items() if _value(cfg, key) != option.default]
    for keys, decisive, values in USED:
        switched = decisive in typed or decisive.partition(".")[0] in typed
        unused = [key for key in changed if key.startswith(keys) and key != decisive and (key in typed or not switched)]
        if not unused or _value(cfg, decisive) in values:
            continue
        changed = [key for key in changed if key not in unused]
        alone, unset = " or ".join(map(as_typed, values)), " ".join(f"{key}={options[key].default_text}" for key in unused)
        found.append(f"{_said(cfg, *unused, decisive)}: for {decisive}={alone} alone; choose that, or leave it at {unset}")
    return found


def is_used(cfg: RootConfig, key: str) -> bool:
    """Whether an option plays a part, as far as ``USED`` tells."""
    return all(_value(cfg, decisive) in values for keys, decisive, values in USED if key.startswith(keys) and key != decisive)


def task_problems(cfg: RootConfig) -> list[str]:
    """What is wrong with the options of evaluations."""
    return [*_evaluation(cfg), *_ranges(cfg, "evaluation."), *_ranges(cfg, "captioning.")]


def _evaluation(cfg: RootConfig) -> Iterator[str]:
    for task in cfg.evaluation.tasks:
        if task not in TASKS:
            yield f"{_said(cfg, 'evaluation.tasks')}: there is no task '{task}'{nearest(task, TASKS)}; choose from {', '.join(TASKS)}"
    for key, ready_made in (("classes", ("imagenet",)), ("templates", ("openai_imagenet", "simple"))):
        value = getattr(cfg.evaluation, key)
        if value is not None and value not in ready_made and not value.endswith((".json", ".txt")):
            rule = f"must be a .json or .txt file, or {' or '.join(ready_made)}{nearest(value, ready_made)}"
            yield f"{_said(cfg, f'evaluation.{key}')}: {rule}"


def _said(cfg: RootConfig, *keys: str) -> str:
    return ", ".join(f"{key}={as_typed(_value(cfg, key))}" for key in keys)


def _value(cfg: RootConfig, key: str) -> Any:
    return reduce(getattr, key.split("."), cfg)


def _ranges(cfg: RootConfig, beginning: str = "") -> Iterator[str]:
    for key, allowed in RANGES.items():
        value = _value(cfg, key)
        if key.startswith(beginning) and value is not None and value not in allowed:
            yield f"{_said(cfg, key)}: must be {allowed}; the default is {schema_options()[key].default_text}"


def _independent_of_numbers(cfg: RootConfig) -> Iterator[str]:
    yield from _run(cfg)
    yield from _task(cfg)
    yield from _shards(cfg)
    yield from _architecture(cfg)
    yield from _mixing(cfg)
    yield from _strategy(cfg)
    yield from _length(cfg)
    yield from _launcher(cfg)
    yield from _evaluation(cfg)


def _run(cfg: RootConfig) -> Iterator[str]:
    if not cfg.run_dir:
        yield "run_dir=: must name a folder; leave it out for runs/NAME"
    if cfg.resume not in ("auto", "never") and not Path(cfg.resume).exists():
        yield f"{_said(cfg, 'resume')}: must be auto, never, or a checkpoint file or folder; there is none (auto finds the newest)"
    if cfg.profile is not None and not (len(cfg.profile) == 2 and 1 <= cfg.profile[0] <= cfg.profile[1]):
        yield f"{_said(cfg, 'profile')}: must be [first,last], two steps counted from 1, e.g. profile=[10,12]"


def _task(cfg: RootConfig) -> Iterator[str]:
    """What does not go together with pre-training, and what does not with a task."""
    task, data = cfg.task, cfg.data
    if task is Task.pretrain:
        if cfg.init is not None:
            yield f"{_said(cfg, 'init')}: a task starts from another run, as in task=vqa; to pre-train from weights set model.pretrained"
        return
    if _mixes(cfg):
        yield f"{_said(cfg, 'task', 'mixing.kind')}: images are mixed in pre-training alone; leave mixing out"
    if data.kind is DataKind.stream:
        yield f"{_said(cfg, 'task', 'data.kind')}: a task needs shards that can be indexed; choose data=shards ('timix-data index' indexes)"
    if task is Task.vqa and data.kind is DataKind.scenes:
        yield f"{_said(cfg, 'task', 'data.kind')}: the embedded data set has no questions; choose data=shards, or experiment=visual7w"
    if task is Task.vqa and cfg.vqa.heads > 0 and cfg.vqa.dim % cfg.vqa.heads:
        yield f"{_said(cfg, 'vqa.dim', 'vqa.heads')}: the channels are shared out to the heads; e.g. vqa.dim={64 * cfg.vqa.heads}"
    if cfg.trainer.strategy is Strategy.fsdp:
        yield f"{_said(cfg, 'task', 'trainer.strategy')}: tasks are learnt with a copy of the model on each device; choose trainer=ddp"
    captioning = cfg.captioning
    if task is Task.captioning and captioning.decoder is None and captioning.heads > 0 and captioning.dim % captioning.heads:
        said = _said(cfg, "captioning.dim", "captioning.heads")
        yield f"{said}: the channels are shared out to the heads; e.g. captioning.dim={64 * captioning.heads}"


def _shards(cfg: RootConfig) -> Iterator[str]:
    data = cfg.data
    for name in SHARDS:
        value = getattr(data, name)
        if value is not None and not _is_shards(value):
            yield (
                f"{_said(cfg, f'data.{name}')}: must be a folder, a pattern, or a list of them, whose items may be "
                "{path: FOLDER, weight: NUMBER} with a weight above 0"
            )
        if _runs_commands(value) and not (data.allow_pipe and data.kind is DataKind.stream and name == "train_shards"):
            yield (
                f"{_said(cfg, f'data.{name}')}: 'pipe:' runs a shell command, and only data.train_shards of data=stream may; "
                "set data.allow_pipe=true there if you trust it, or give the URL itself"
            )
        if value is not None and data.kind is DataKind.scenes:
            yield f"{_said(cfg, f'data.{name}')}: data=scenes makes its own data; leave it out, or choose data=shards"
    if data.prepare is not None and data.kind is DataKind.scenes:
        yield f"{_said(cfg, 'data.prepare')}: data=scenes makes its own data; set data.prepare=null, or choose data=shards"
    if data.kind is not DataKind.scenes:
        if data.train_shards is None:
            yield "data.train_shards is not set: name the folder of the training shards, or try the embedded data set with data=scenes"
        if data.region_shards is None and teaches_pta(cfg):
            yield (
                f"data.region_shards is not set, and {_said(cfg, 'mixing.kind', 'pta.enabled')} learns from images with boxes: "
                "name the folder of the region shards, or choose mixing=none, cutmix, mixup or mixgen, which need none"
            )
    if data.phrase_template.count("{}") != 1:
        yield f"{_said(cfg, 'data.phrase_template')}: must contain {{}} once, where the phrase goes, as in 'a photo of a {{}}'"
    for name, highest in (("scale", 1.0), ("ratio", math.inf)):
        yield from _low_high(cfg, f"data.augmentation.{name}", highest)
    jitter = data.augmentation.color_jitter
    if len(jitter) != 4 or not all(0 <= strength < math.inf for strength in jitter) or jitter[3] > 0.5:
        yield (
            f"{_said(cfg, 'data.augmentation.color_jitter')}: must be [brightness,contrast,saturation,hue], at least 0, and the hue "
            "at most 0.5; e.g. [0.32,0.32,0.32,0.08]"
        )


def _is_shards(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and bool(value) and all(_is_source(item) for item in value))


def _runs_commands(value: Any) -> bool:
    paths = [item.get("path") if isinstance(item, dict) else item for item in (value if isinstance(value, list) else [value])]
    return any(isinstance(path, str) and path.startswith("pipe:") for path in paths)


def _is_source(item: Any) -> bool:
    if isinstance(item, dict):
        weight = item.get("weight", 1.0)
        return set(item) <= {"path", "weight"} and isinstance(item.get("path"), str) and isinstance(weight, (int, float)) and weight > 0
    return isinstance(item, str)


def _low_high(cfg: RootConfig, key: str, highest: float) -> Iterator[str]:
    value = _value(cfg, key)
    if len(value) != 2 or not 0 < value[0] <= value[1] <= highest:
        end = f" and at most {highest:g}" if highest < math.inf else ""
        yield f"{_said(cfg, key)}: must be [smallest,largest], above 0{end}; the default is {schema_options()[key].default_text}"


def _architecture(cfg: RootConfig) -> Iterator[str]:
    name, known = cfg.model.architecture, known_architectures()
    if name not in known:
        yield f"{_said(cfg, 'model.architecture')}: unknown{nearest(name, known)}; open_clip.list_models() lists all names"


def teaches_pta(cfg: RootConfig) -> bool:
    """Whether the run trains the patch-text alignment head; a fine-tuning run only keeps it."""
    return cfg.pta.enabled and cfg.task is Task.pretrain


def _mixes(cfg: RootConfig) -> bool:
    return cfg.mixing.kind is not MixingKind.none and cfg.mixing.ratio > 0


def mixing_level(level: str) -> int | None:
    """The block k of ``tokens:k``; None for ``pixels``.

    Raises:
        ValueError: it is neither.
    """
    if level == "pixels":
        return None
    kind, _, block = level.partition(":")
    if kind != "tokens" or not (block.isascii() and block.isdigit()):
        raise ValueError(level)
    return int(block)


def _mixing(cfg: RootConfig) -> Iterator[str]:
    mixing = cfg.mixing
    try:
        level = mixing_level(mixing.level)
    except ValueError:
        level = None
        yield f"{_said(cfg, 'mixing.level')}: must be pixels, or tokens:k with a block k of the image tower, as in mixing.level=tokens:2"
    if not _mixes(cfg):
        return
    if mixing.kind is MixingKind.timix and not cfg.pta.enabled:
        yield "mixing.kind=timix, pta.enabled=false: TiMix needs the PTA head's scores; set pta.enabled=true, or choose another mixing"
    if mixing.lam is Lam.relevance and mixing.kind is not MixingKind.timix:
        yield f"{_said(cfg, 'mixing.lam', 'mixing.kind')}: only timix has the scores that relevance is made of; set mixing.lam=area"
    if mixing.compute is Compute.replace and mixing.targets is Targets.self and mixing.kind is not MixingKind.mixgen:
        yield "mixing.compute=replace, mixing.targets=self: self needs the clean pass that replace leaves out; set mixing.targets=one_hot"
    if level and cfg.model.patch_dropout > 0:
        yield (
            f"{_said(cfg, 'mixing.level', 'model.patch_dropout')}: the tokens that a window takes may have been dropped by then; set "
            "mixing.level=tokens:0 or pixels, or model.patch_dropout=0"
        )


def _strategy(cfg: RootConfig) -> Iterator[str]:
    if cfg.trainer.cpu_offload and cfg.trainer.strategy is not Strategy.fsdp:
        yield f"{_said(cfg, 'trainer.cpu_offload', 'trainer.strategy')}: only fsdp can; choose trainer=fsdp, or false"


def _length(cfg: RootConfig) -> Iterator[str]:
    trainer = cfg.trainer
    if trainer.max_steps is None and trainer.max_epochs is None:
        yield "trainer.max_steps and trainer.max_epochs are not set: give one of them, e.g. trainer.max_epochs=10"
    if trainer.max_steps is not None and trainer.max_epochs is not None:
        yield f"{_said(cfg, 'trainer.max_steps', 'trainer.max_epochs')}: only one may be set; set the other to null"
    if trainer.max_epochs is not None and cfg.data.kind is DataKind.stream and cfg.data.epoch_samples is None:
        yield (
            f"{_said(cfg, 'trainer.max_epochs')}: data=stream has no epochs; say with data.epoch_samples how many samples are one, or set "
            "trainer.max_steps, and trainer.max_epochs=null"
        )


def _launcher(cfg: RootConfig) -> Iterator[str]:
    launcher, trainer = cfg.launcher, cfg.trainer
    if launcher.kind is LauncherKind.slurm:
        if trainer.devices is None:
            yield f"{_said(cfg, 'launcher.kind', 'trainer.devices')}: SLURM is told what to give; set trainer.devices to the GPUs of a node"
        if launcher.signal_s >= launcher.time_min * 60:
            yield f"{_said(cfg, 'launcher.signal_s', 'launcher.time_min')}: the warning must come after the start; raise the second"
        if wrong := [option for option in launcher.sbatch if not option.startswith("--")]:
            yield f"launcher.sbatch={as_typed(wrong)}: must be long options, as sbatch takes them, e.g. '[--exclusive]'"
    if launcher.kind is LauncherKind.torchrun:
        if trainer.num_nodes > 1 and not re.fullmatch(r".+:\d+", launcher.rdzv_endpoint or ""):
            yield (
                f"{_said(cfg, 'launcher.rdzv_endpoint', 'trainer.num_nodes')}: the nodes must know where to meet; "
                "set launcher.rdzv_endpoint=HOST:PORT of node 0, e.g. node0:29500, on every node"
            )
        if launcher.node_rank >= trainer.num_nodes:
            last = trainer.num_nodes - 1
            yield f"{_said(cfg, 'launcher.node_rank', 'trainer.num_nodes')}: nodes are numbered from 0 to {last}; raise the second"


def batch_problems(cfg: RootConfig, ranks: int) -> Iterator[str]:
    """Batch sizes and group sizes that do not divide among ``ranks`` processes, or leave one too little. What is proposed fits together."""
    if teaches_pta(cfg):
        if cfg.pta.batch_size % ranks:
            yield _not_shared(cfg, "pta.batch_size", ranks, ranks)
        if cfg.pta.negative_frac > 0 and cfg.pta.batch_size < 2:
            said = _said(cfg, "pta.negative_frac", "pta.batch_size")
            yield f"{said}: negatives are phrases of another image; set pta.batch_size={max(2, ranks)} or more"
    size, group = cfg.data.global_batch_size, cfg.mixing.group_size if _mixes(cfg) else 1
    if size % ranks:
        yield _not_shared(cfg, "data.global_batch_size", ranks, ranks * group)
        size = _rounded_up(size, ranks * group)
    elif size // ranks % group:
        said, per_rank = _said(cfg, "mixing.group_size", "data.global_batch_size"), size // ranks
        divisor = math.gcd(per_rank, group)
        if round(cfg.mixing.ratio * divisor) < 2:
            size = _rounded_up(size, ranks * group)
            way_out = f"data.global_batch_size={size}"
        else:
            group = divisor
            way_out = f"mixing.group_size={group}"
        yield f"{said}: the group size must divide the batch of a rank, {per_rank}; e.g. {way_out}"
    yield from _micro_batch_problems(cfg, size // ranks, group)


def _not_shared(cfg: RootConfig, key: str, ranks: int, divisor: int) -> str:
    proposed = _rounded_up(_value(cfg, key), divisor)
    return f"{_said(cfg, key)}: must be a multiple of the number of ranks, {ranks}; e.g. {key}={proposed}"


def _rounded_up(size: int, divisor: int) -> int:
    return math.ceil(size / divisor) * divisor


def micro_batch_sizes(per_rank: int, group: int) -> list[int]:
    """What ``trainer.micro_batch_size`` may be where a rank's batch holds ``per_rank`` pairs in groups of ``group``, the smallest first."""
    return [size for size in range(group, per_rank + 1, group) if per_rank % size == 0]


def _micro_batch_problems(cfg: RootConfig, per_rank: int, group: int) -> Iterator[str]:
    size, fitting = cfg.trainer.micro_batch_size, micro_batch_sizes(per_rank, group)
    if size is None or size >= per_rank or size in fitting:
        return
    rule = f"divide the batch of a rank, {per_rank}" + (f", and be a multiple of mixing.group_size={group}" if group > 1 else "")
    nearest_fitting = min(fitting, key=lambda fits: abs(fits - size))
    yield f"{_said(cfg, 'trainer.micro_batch_size')}: must {rule}; e.g. trainer.micro_batch_size={nearest_fitting}"


def _mixing_numbers(cfg: RootConfig) -> Iterator[str]:
    mixing = cfg.mixing
    if _mixes(cfg) and round(mixing.ratio * mixing.group_size) < 2:
        yield (
            f"{_said(cfg, 'mixing.ratio', 'mixing.group_size')}: fewer than two rows of a group, so that nothing would be mixed; "
            f"set mixing.ratio={2 / mixing.group_size:g} or more, or mixing=none"
        )
    if mixing.min_side > mixing.max_side:
        yield f"{_said(cfg, 'mixing.min_side', 'mixing.max_side')}: the smallest side must not exceed the largest; raise mixing.max_side"
    if mixing.warmup_frac > mixing.stop_frac:
        yield f"{_said(cfg, 'mixing.warmup_frac', 'mixing.stop_frac')}: the ramp must end before mixing does; lower mixing.warmup_frac"


def _schedules(cfg: RootConfig) -> Iterator[str]:
    optim = cfg.optim
    if optim.min_lr > optim.lr:
        yield f"{_said(cfg, 'optim.min_lr', 'optim.lr')}: the last learning rate must not exceed the peak; lower optim.min_lr"
    if optim.schedule is ScheduleKind.constant_with_cooldown and optim.warmup_frac + optim.cooldown_frac > 1:
        yield f"{_said(cfg, 'optim.warmup_frac', 'optim.cooldown_frac')}: together at most 1; lower one of them"
    if cfg.model.init_logit_scale is not None and cfg.model.init_logit_scale > cfg.model.max_logit_scale:
        yield f"{_said(cfg, 'model.init_logit_scale', 'model.max_logit_scale')}: must not start above its bound; raise the second"
