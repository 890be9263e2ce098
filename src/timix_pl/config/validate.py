"""Checks for options that contradict each other or have no effect. Every message names the key, its value, the rule and a way out.

These checks need only the configuration and run before any file or GPU is used. Whatever depends on the data, the model or the machine
(whether a folder exists, whether the patch grid is large enough for the windows) is checked where these are built.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Set
from pathlib import Path
from typing import Any

from timix_pl.config.entry_options import entry_problems, is_taken
from timix_pl.config.facts import value_of
from timix_pl.config.rules import FileOr, Shards
from timix_pl.config.saved import plugins_of_run
from timix_pl.config.schema import Compute, DataKind, LauncherKind, Precision, PtaTeacher, RootConfig, Strategy, Targets, TunedTowers
from timix_pl.config.schema_options import Option, schema_options
from timix_pl.core.architectures import known_architectures
from timix_pl.core.choices import MIXERS, OPTIMIZERS
from timix_pl.core.words import as_typed, nearest


def problems(cfg: RootConfig) -> list[str]:
    """All problems of a composed configuration, one message each; empty if it can be built."""
    # With trainer.devices=null the number of GPUs is not known yet; building/devices.py checks the batch sizes again.
    ranks = (cfg.trainer.devices or 1) * cfg.trainer.num_nodes
    if wrong := [*_wrong_names(cfg, schema_options().values()), *_wrong_values(cfg, schema_options().values())]:
        return wrong + list(_independent_of_values(cfg))
    quick = [*_independent_of_values(cfg), *_mixing(cfg), *batch_problems(cfg, ranks), *_numbers(cfg)]
    # The rest imports the chosen entries, and with them PyTorch, which takes seconds. A mistake found without it is reported at once.
    return quick or [*entry_problems(cfg), *_strategy(cfg), *_optimizer(cfg)]


def evaluation_problems(cfg: RootConfig) -> list[str]:
    """All problems of the options that ``timix-evaluate`` takes."""
    options = [option for option in schema_options().values() if option.facts.in_evaluation]
    return [*_wrong_names(cfg, options), *_wrong_values(cfg, options)] or list(entry_problems(cfg))


def unused_options(cfg: RootConfig, typed: Set[str], of_files: Callable[[], RootConfig] | None = None) -> list[str]:
    """A message for each group of options that were set but have no effect.

    Args:
        typed: keys on the command line.
        of_files: gives the configuration from the files only, without ``typed``. An option that a file sets is reported only if it has no
            effect there either; otherwise something on the command line has switched it off on purpose. None: options of files are not
            reported.
    """
    unused = [option for option in schema_options().values() if value_of(cfg, option.key) != option.default and option.unmet(cfg)]
    if any(option.key not in typed for option in unused):
        before = of_files() if of_files else None
        unused = [option for option in unused if option.key in typed or (before and option.unmet(before))]
    by_reason: dict[tuple[str, str], list[str]] = {}
    for option in unused:
        condition = option.unmet(cfg)
        assert condition is not None
        by_reason.setdefault((condition.key, condition.words(option.key)), []).append(option.key)
    return [_without_effect(cfg, keys, decisive, words) for (decisive, words), keys in by_reason.items()]


def _without_effect(cfg: RootConfig, keys: list[str], decisive: str, words: str) -> str:
    has, it = ("has", "it") if len(keys) == 1 else ("have", "them")
    return f"{said(cfg, *keys)}: {has} no effect with {said(cfg, decisive)}; remove {it}, or choose {words}"


def is_used(cfg: RootConfig, key: str) -> bool:
    """Whether an option has an effect in this configuration."""
    option = schema_options().get(key)
    if option is None:
        return ".options." not in key or is_taken(cfg, key)
    return option.unmet(cfg) is None


def said(cfg: RootConfig, *keys: str) -> str:
    """The keys with their values, ``KEY=VALUE, KEY=VALUE``, for the start of a message."""
    return ", ".join(f"{key}={as_typed(value_of(cfg, key))}" for key in keys)


def mixes(cfg: RootConfig) -> bool:
    """Whether the run mixes images."""
    return cfg.mixing.kind != "none" and cfg.mixing.ratio > 0


def is_pretraining(cfg: RootConfig) -> bool:
    """Whether the run pre-trains the towers, rather than fine-tuning them for a task."""
    return cfg.task == "pretrain"


def teaches_pta(cfg: RootConfig) -> bool:
    """Whether the run trains the patch-text alignment head; a fine-tuning run only keeps it."""
    return cfg.pta.enabled and is_pretraining(cfg)


def boxes_teach(cfg: RootConfig) -> bool:
    """Whether region images with boxes teach the PTA head."""
    return teaches_pta(cfg) and cfg.pta.teacher is not PtaTeacher.mixing


def mixing_teaches(cfg: RootConfig) -> bool:
    """Whether mixed images teach the PTA head."""
    return teaches_pta(cfg) and cfg.pta.teacher in (PtaTeacher.mixing, PtaTeacher.both)


def shard_options() -> list[Option]:
    """The options that name shards."""
    return [option for option in schema_options().values() if isinstance(option.facts.within, Shards)]


def _wrong_names(cfg: RootConfig, options: Iterable[Option]) -> Iterator[str]:
    """Names that are not in the option's registry, and lists that name one twice."""
    for option in options:
        registry, value = option.facts.registry, value_of(cfg, option.key)
        if registry is not None:
            names = value if isinstance(value, list) else [value]
            unknown = [name for name in names if name != registry.none and name not in registry]
            yield from (f"{registry.unknown(name)}{plugins_of_run(cfg.run_dir)}" for name in unknown)
            if twice := {name: None for name in names if names.count(name) > 1}:
                yield f"{said(cfg, option.key)}: names {', '.join(twice)} more than once; remove the repetition"


def _wrong_values(cfg: RootConfig, options: Iterable[Option]) -> Iterator[str]:
    """Values that break the option's own rule."""
    for option in options:
        rule, value = option.facts.within, value_of(cfg, option.key)
        if rule is not None and value is not None and value not in rule:
            hint = nearest(value, rule.names) if isinstance(rule, FileOr) else ""
            yield f"{said(cfg, option.key)}: must be {rule}{hint}; the default is {option.default_text}"


def _independent_of_values(cfg: RootConfig) -> Iterator[str]:
    yield from _run(cfg)
    yield from _task(cfg)
    yield from _shards(cfg)
    yield from _architecture(cfg)
    yield from _length(cfg)
    yield from _launcher(cfg)


def _run(cfg: RootConfig) -> Iterator[str]:
    if not cfg.run_dir:
        yield "run_dir=: must name a folder; leave it out for runs/NAME"
    if cfg.resume not in ("auto", "never") and not Path(cfg.resume).exists():
        yield f"{said(cfg, 'resume')}: there is no such checkpoint; name one, or choose auto (the newest in run_dir) or never"


def _task(cfg: RootConfig) -> Iterator[str]:
    """Options that do not fit ``task``."""
    if is_pretraining(cfg):
        if cfg.init is not None:
            yield f"{said(cfg, 'init')}: a task starts from another run, as in task=vqa; to pre-train from weights set model.pretrained"
        return
    if mixes(cfg):
        yield f"{said(cfg, 'task', 'mixing.kind')}: images are mixed only in pre-training; remove mixing"
    if cfg.data.kind is DataKind.stream:
        yield f"{said(cfg, 'task', 'data.kind')}: a task needs shards that can be indexed; choose data=shards ('timix-data index' indexes)"
    if is_used(cfg, "vqa.kind") and cfg.data.kind is DataKind.scenes:
        yield f"{said(cfg, 'task', 'data.kind')}: the embedded data set has no questions; choose data=shards, or experiment=visual7w"
    if cfg.trainer.strategy is Strategy.fsdp:
        yield f"{said(cfg, 'task', 'trainer.strategy')}: fine-tuning does not support fsdp; choose trainer=ddp"
    for head in ("vqa", "captioning"):
        dim, heads = value_of(cfg, f"{head}.dim"), value_of(cfg, f"{head}.heads")
        if is_used(cfg, f"{head}.dim") and heads > 0 and dim % heads:
            keys = said(cfg, f"{head}.dim", f"{head}.heads")
            yield f"{keys}: the channels must be a multiple of the heads; e.g. {head}.dim={64 * heads}"


def _shards(cfg: RootConfig) -> Iterator[str]:
    data, scenes = cfg.data, cfg.data.kind is DataKind.scenes
    for key in [option.key for option in shard_options()]:
        value = value_of(cfg, key)
        if _runs_commands(value) and not (data.allow_pipe and data.kind is DataKind.stream and key == "data.train_shards"):
            yield (
                f"{said(cfg, key)}: 'pipe:' runs a shell command; it is allowed only in data.train_shards, with data=stream and "
                "data.allow_pipe=true. Set these if you trust the command, or give the URL itself"
            )
        if value is not None and scenes:
            yield f"{said(cfg, key)}: data=scenes makes its own data; remove the option, or choose data=shards"
    if data.prepare is not None and scenes:
        yield f"{said(cfg, 'data.prepare')}: data=scenes makes its own data; set data.prepare=null, or choose data=shards"
    if data.train_shards is None and not scenes:
        yield "data.train_shards is not set: name the folder of the training shards, or try the embedded data set with data=scenes"
    if data.region_shards is None and not scenes and boxes_teach(cfg):
        without = "pta.teacher=mixing" if mixes(cfg) else "pta.enabled=false"
        yield (
            f"data.region_shards is not set, but {said(cfg, 'pta.teacher')} trains on images with boxes: name the folder of the region "
            f"shards, or set {without}"
        )


def _runs_commands(value: Any) -> bool:
    paths = [item.get("path") if isinstance(item, dict) else item for item in (value if isinstance(value, list) else [value])]
    return any(isinstance(path, str) and path.startswith("pipe:") for path in paths)


def _architecture(cfg: RootConfig) -> Iterator[str]:
    name, known = cfg.model.architecture, known_architectures()
    if name not in known:
        yield f"{said(cfg, 'model.architecture')}: unknown{nearest(name, known)}; open_clip.list_models() lists open_clip's names"


def mixing_level(level: str) -> int | None:
    """The block k of ``tokens:k``; None for ``pixels``.

    Raises:
        ValueError: ``level`` is neither.
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
        yield f"{said(cfg, 'mixing.level')}: must be pixels, or tokens:k with a block k of the image tower, as in mixing.level=tokens:2"
    if not mixes(cfg):
        if mixing_teaches(cfg):
            yield (
                f"{said(cfg, 'pta.teacher', 'mixing.kind')}: no images are mixed; choose mixing=timix or cutmix, or pta.teacher=boxes with "
                "data.region_shards"
            )
        return
    if mixing.compute is Compute.replace and mixing.targets is Targets.self and is_used(cfg, "mixing.targets"):
        yield "mixing.compute=replace, mixing.targets=self: self needs the clean pass, which replace skips; set mixing.targets=one_hot"
    if level is not None and level > cfg.pta.block and mixing_teaches(cfg):
        yield (
            f"{said(cfg, 'pta.teacher', 'mixing.level', 'pta.block')}: the head reads features that are not mixed yet, and cannot "
            f"learn from them; set mixing.level=tokens:{cfg.pta.block} or less, or pixels"
        )
    if level and cfg.model.patch_dropout > 0:
        yield (
            f"{said(cfg, 'mixing.level', 'model.patch_dropout')}: patches of a window may be dropped before they are mixed; set "
            "mixing.level=tokens:0 or pixels, or model.patch_dropout=0"
        )


def _strategy(cfg: RootConfig) -> Iterator[str]:
    if mixes(cfg) and not cfg.pta.enabled and MIXERS[cfg.mixing.kind].needs_scores:
        yield (
            f"{said(cfg, 'mixing.kind', 'pta.enabled')}: this strategy needs the scores of the PTA head; set pta.enabled=true, or choose "
            "another mixing"
        )
    if mixes(cfg) and mixing_teaches(cfg) and not MIXERS[cfg.mixing.kind].has_windows:
        windows = " or ".join(name for name in MIXERS.names() if MIXERS[name].has_windows)
        yield (
            f"{said(cfg, 'mixing.kind', 'pta.teacher')}: each patch of these mixed images comes from two images, so they cannot teach "
            f"the head; choose mixing={windows}, or pta.teacher=boxes with data.region_shards, or pta.enabled=false"
        )


def _optimizer(cfg: RootConfig) -> Iterator[str]:
    optimizer = OPTIMIZERS[cfg.optim.kind]
    if cfg.trainer.strategy is Strategy.fsdp and not optimizer.shards:
        yield f"{said(cfg, 'optim.kind', 'trainer.strategy')}: this optimizer needs whole weights; choose trainer=ddp, or another optim"
    if optimizer.for_hidden_matrices and not is_pretraining(cfg) and cfg.tune.towers is TunedTowers.frozen:
        yield (
            f"{said(cfg, 'optim.kind', 'tune.towers')}: this optimizer is for the weight matrices of the towers' blocks, which are frozen; "
            "choose another optim, or tune.towers=last or all"
        )
    if cfg.optim.ema is not None and cfg.trainer.precision is Precision.bf16_pure:
        yield (
            f"{said(cfg, 'optim.ema', 'trainer.precision')}: an average in bf16 would not change, because its steps are smaller than the "
            "rounding; choose trainer.precision=bf16_mixed"
        )


def _length(cfg: RootConfig) -> Iterator[str]:
    trainer = cfg.trainer
    if trainer.max_steps is None and trainer.max_epochs is None:
        yield "trainer.max_steps and trainer.max_epochs are not set: give one of them, e.g. trainer.max_epochs=10"
    if trainer.max_steps is not None and trainer.max_epochs is not None:
        yield f"{said(cfg, 'trainer.max_steps', 'trainer.max_epochs')}: only one may be set; set the other to null"
    if trainer.max_epochs is not None and cfg.data.kind is DataKind.stream and cfg.data.epoch_samples is None:
        yield (
            f"{said(cfg, 'trainer.max_epochs')}: data=stream has no epochs; set data.epoch_samples to the number of samples that count as "
            "one, or set trainer.max_steps and trainer.max_epochs=null"
        )


def _launcher(cfg: RootConfig) -> Iterator[str]:
    launcher, trainer = cfg.launcher, cfg.trainer
    if launcher.kind is LauncherKind.slurm:
        if trainer.devices is None:
            keys = said(cfg, "launcher.kind", "trainer.devices")
            yield f"{keys}: SLURM must know the number of processes per node; set trainer.devices to the GPUs per node"
        if launcher.signal_s >= launcher.time_min * 60:
            yield f"{said(cfg, 'launcher.signal_s', 'launcher.time_min')}: the signal must come after the start; raise launcher.time_min"
        if wrong := [option for option in launcher.sbatch if not option.startswith("--")]:
            yield f"launcher.sbatch={as_typed(wrong)}: must be long options of sbatch, e.g. 'launcher.sbatch=[--exclusive]'"
    if launcher.kind is LauncherKind.torchrun:
        if trainer.num_nodes > 1 and not re.fullmatch(r".+:\d+", launcher.rdzv_endpoint or ""):
            yield (
                f"{said(cfg, 'launcher.rdzv_endpoint', 'trainer.num_nodes')}: the nodes need an address to meet at; "
                "set launcher.rdzv_endpoint=HOST:PORT of node 0, e.g. node0:29500, on every node"
            )
        if launcher.node_rank >= trainer.num_nodes:
            last = trainer.num_nodes - 1
            keys = said(cfg, "launcher.node_rank", "trainer.num_nodes")
            yield f"{keys}: nodes are numbered from 0 to {last}; correct launcher.node_rank, or raise trainer.num_nodes"


def batch_problems(cfg: RootConfig, ranks: int) -> Iterator[str]:
    """Batch sizes and group sizes that do not divide evenly among ``ranks`` processes. The proposed values fit together."""
    if boxes_teach(cfg):
        if cfg.pta.batch_size % ranks:
            yield _not_shared(cfg, "pta.batch_size", ranks, ranks)
        if cfg.pta.negative_frac > 0 and cfg.pta.batch_size < 2:
            keys = said(cfg, "pta.negative_frac", "pta.batch_size")
            yield f"{keys}: negatives are phrases of another image; set pta.batch_size={max(2, ranks)} or more"
    size, group = cfg.data.global_batch_size, cfg.mixing.group_size if mixes(cfg) else 1
    if size % ranks:
        yield _not_shared(cfg, "data.global_batch_size", ranks, ranks * group)
        size = _rounded_up(size, ranks * group)
    elif size // ranks % group:
        keys, per_rank = said(cfg, "mixing.group_size", "data.global_batch_size"), size // ranks
        divisor = math.gcd(per_rank, group)
        if round(cfg.mixing.ratio * divisor) < 2:
            size = _rounded_up(size, ranks * group)
            way_out = f"data.global_batch_size={size}"
        else:
            group = divisor
            way_out = f"mixing.group_size={group}"
        yield f"{keys}: the group size must divide the batch of a rank, {per_rank}; e.g. {way_out}"
    yield from _micro_batch_problems(cfg, size // ranks, group)


def _not_shared(cfg: RootConfig, key: str, ranks: int, divisor: int) -> str:
    proposed = _rounded_up(value_of(cfg, key), divisor)
    return f"{said(cfg, key)}: must be a multiple of the number of ranks, {ranks}; e.g. {key}={proposed}"


def _rounded_up(size: int, divisor: int) -> int:
    return math.ceil(size / divisor) * divisor


def micro_batch_sizes(per_rank: int, group: int) -> list[int]:
    """The allowed values of ``trainer.micro_batch_size`` for ``per_rank`` pairs per rank in groups of ``group``, the smallest first."""
    return [size for size in range(group, per_rank + 1, group) if per_rank % size == 0]


def _micro_batch_problems(cfg: RootConfig, per_rank: int, group: int) -> Iterator[str]:
    size, fitting = cfg.trainer.micro_batch_size, micro_batch_sizes(per_rank, group)
    if size is None or size >= per_rank or size in fitting:
        return
    rule = f"divide the batch of a rank, {per_rank}" + (f", and be a multiple of mixing.group_size={group}" if group > 1 else "")
    nearest_fitting = min(fitting, key=lambda fits: abs(fits - size))
    yield f"{said(cfg, 'trainer.micro_batch_size')}: must {rule}; e.g. trainer.micro_batch_size={nearest_fitting}"


def _numbers(cfg: RootConfig) -> Iterator[str]:
    """Numbers that contradict each other, although each is within its own range."""
    mixing, optim, model = cfg.mixing, cfg.optim, cfg.model
    if mixes(cfg) and round(mixing.ratio * mixing.group_size) < 2:
        yield (
            f"{said(cfg, 'mixing.ratio', 'mixing.group_size')}: fewer than two rows per group would be mixed, but a row needs a partner; "
            f"set mixing.ratio={2 / mixing.group_size:g} or more, or mixing=none"
        )
    if mixing.min_side > mixing.max_side:
        yield f"{said(cfg, 'mixing.min_side', 'mixing.max_side')}: the smallest side must not exceed the largest; raise mixing.max_side"
    if mixing.warmup_frac > mixing.stop_frac:
        yield f"{said(cfg, 'mixing.warmup_frac', 'mixing.stop_frac')}: the ramp must end before mixing does; lower mixing.warmup_frac"
    if optim.min_lr > optim.lr:
        yield f"{said(cfg, 'optim.min_lr', 'optim.lr')}: the last learning rate must not exceed the peak; lower optim.min_lr"
    if optim.warmup_frac + optim.cooldown_frac > 1 and is_used(cfg, "optim.cooldown_frac"):
        yield f"{said(cfg, 'optim.warmup_frac', 'optim.cooldown_frac')}: their sum must be at most 1; lower one of them"
    if model.init_logit_scale is not None and model.init_logit_scale > model.max_logit_scale:
        yield f"{said(cfg, 'model.init_logit_scale', 'model.max_logit_scale')}: must not start above the bound; raise model.max_logit_scale"
