"""Every contradiction and every range: one message that names the key, its value, the rule and the way out."""

import itertools
import re

import pytest
from omegaconf import OmegaConf

from timix_pl.config.compose import compose, to_root
from timix_pl.config.conf_dir import groups
from timix_pl.config.derived import choose_teaching
from timix_pl.config.rules import Range
from timix_pl.config.schema_options import schema_options
from timix_pl.config.validate import problems, unused_options
from timix_pl.core.choices import OPTIMIZERS

WITH_EPS = [kind for kind in OPTIMIZERS.names() if "eps" in OPTIMIZERS.options(kind)]
SCENES = ["data.kind=scenes", "model.architecture=timix-tiny", "trainer.max_steps=10"]
SHARDS = ["data.train_shards=a", "data.region_shards=b", "model.architecture=timix-tiny", "trainer.max_steps=10"]


VQA, CAPTIONING = ([*SHARDS, "data.region_shards=null", "mixing.kind=none", f"task={task}"] for task in ("vqa", "captioning"))


def config(overrides):
    cfg = to_root(OmegaConf.from_dotlist(overrides))
    choose_teaching(cfg)
    return cfg


def problems_of(overrides):
    cfg = config(overrides)
    return [*unused_options(cfg, set(), lambda: cfg), *problems(cfg)]


@pytest.mark.parametrize("base", [SCENES, SHARDS, VQA, CAPTIONING])
def test_a_sound_configuration_has_no_problems(base):
    assert problems_of(base) == []


@pytest.mark.parametrize(
    ("base", "overrides", "parts"),
    [
        (SCENES, ["run_dir=''"], ["run_dir", "must name a folder"]),
        (SCENES, ["resume=nowhere.ckpt"], ["resume=nowhere.ckpt", "there is no such checkpoint"]),
        (SCENES, ["profile=[10]"], ["profile=[10]", "[first,last]", "profile=[10,12]"]),
        (SCENES, ["profile=[0,3]"], ["profile=[0,3]", "counted from 1"]),
        (SCENES, ["profile=[5,3]"], ["profile=[5,3]", "[first,last]"]),
        (SCENES, ["data.train_shards=mine"], ["data.train_shards=mine", "data=scenes makes its own data", "data=shards"]),
        (SCENES, ["data.prepare=flickr8k"], ["data.prepare=flickr8k", "data=scenes", "data.prepare=null"]),
        (SHARDS, ["data.train_shards=null"], ["data.train_shards is not set", "data=scenes"]),
        (SHARDS, ["data.train_shards=3"], ["data.train_shards=3", "must be a folder, a pattern, or a list"]),
        (SHARDS, ["data.train_shards=[]"], ["data.train_shards=[]", "must be a folder, a pattern, or a list"]),
        (SHARDS, ["data.val_shards=[{path: a, weight: 0}]"], ["data.val_shards=[{path: a, weight: 0}]", "a weight above 0"]),
        (SHARDS, ["data.train_shards='pipe:cat a.tar'"], ["data.train_shards=pipe:cat a.tar", "data.allow_pipe=true"]),
        (SHARDS, ["data.train_shards='pipe:cat a.tar'", "data.allow_pipe=true"], ["data.train_shards=pipe:cat a.tar", "data=stream"]),
        (SHARDS, ["data.kind=stream", "data.train_shards=['pipe:cat a.tar']"], ["pipe:cat a.tar", "data.allow_pipe=true"]),
        (SHARDS, ["data.val_shards=[{path: 'pipe:cat a.tar'}]", "data.allow_pipe=true"], ["data.val_shards", "only in data.train_shards"]),
        (SHARDS, ["data.val_shards=[{weight: 1}]"], ["data.val_shards=[{weight: 1}]", "path: FOLDER"]),
        (
            SHARDS,
            ["data.region_shards=null", "pta.teacher=boxes"],
            ["data.region_shards is not set", "pta.teacher=boxes", "pta.teacher=mixing"],
        ),
        (SHARDS, ["data.region_shards=null", "pta.teacher=both"], ["data.region_shards is not set", "pta.teacher=both"]),
        (SHARDS, ["data.region_shards=null", "mixing.kind=none"], ["data.region_shards is not set", "pta.enabled=false"]),
        (SCENES, ["pta.teacher=mixing", "mixing.kind=none"], ["pta.teacher=mixing, mixing.kind=none", "no images are mixed"]),
        (SCENES, ["pta.teacher=mixing", "mixing.kind=mixup"], ["mixing.kind=mixup, pta.teacher=mixing", "mixing=cutmix or timix"]),
        (SCENES, ["pta.teacher=mixing", "mixing.level=tokens:7"], ["mixing.level=tokens:7, pta.block=6", "mixing.level=tokens:6 or less"]),
        (SCENES, ["pta.teacher=mixing", "pta.batch_size=8"], ["pta.batch_size=8", "no effect with pta.teacher=mixing"]),
        (SCENES, ["pta.teacher=mixing", "data.max_phrases=2"], ["data.max_phrases=2", "no effect with pta.teacher=mixing"]),
        (SHARDS, ["pta.teacher=mixing"], ["data.region_shards=b", "no effect with pta.teacher=mixing"]),
        (SCENES, ["pta.mosaic_frac=0.3"], ["pta.mosaic_frac=0.3", "no effect with pta.teacher=boxes"]),
        (SCENES, ["data.phrase_template=photo"], ["data.phrase_template=photo", "contains {} once"]),
        (SCENES, ["data.augmentation.scale=[0.5,1.5]"], ["data.augmentation.scale=[0.5,1.5]", "at most 1", "[0.9,1]"]),
        (SCENES, ["data.augmentation.scale=[0.5]"], ["data.augmentation.scale=[0.5]", "[smallest,largest]"]),
        (SCENES, ["data.augmentation.color_jitter=[0.4,0.4]"], ["data.augmentation.color_jitter=[0.4,0.4]", "[brightness,contrast,"]),
        (SCENES, ["data.augmentation.color_jitter=[0.4,0.4,0.4,0.6]"], ["color_jitter=[0.4,0.4,0.4,0.6]", "hue at most 0.5"]),
        (SCENES, ["data.augmentation.color_jitter=[0,-0.1,0,0]"], ["color_jitter=[0,-0.1,0,0]", "at least 0"]),
        (SCENES, ["data.augmentation.gray_prob=1.5"], ["data.augmentation.gray_prob=1.5", "from 0 to 1"]),
        (SCENES, ["data.augmentation.ratio=[2,1]"], ["data.augmentation.ratio=[2,1]", "[smallest,largest]"]),
        (SCENES, ["model.architecture=ViT-B-33"], ["model.architecture=ViT-B-33", "nearest:", "ViT-B-32"]),
        (SCENES, ["pta.enabled=false"], ["mixing.kind=timix, pta.enabled=false", "set pta.enabled=true"]),
        (
            SCENES,
            ["mixing.kind=cutmix", "mixing.lam=relevance"],
            ["mixing.lam=relevance: has no effect with mixing.kind=cutmix", "choose mixing.kind=timix"],
        ),
        (SCENES, ["mixing.compute=replace"], ["mixing.compute=replace, mixing.targets=self", "mixing.targets=one_hot"]),
        (SCENES, ["mixing.level=tokens"], ["mixing.level=tokens: must be pixels, or tokens:k", "mixing.level=tokens:2"]),
        (SCENES, ["mixing.level='tokens:-1'"], ["mixing.level=tokens:-1: must be pixels, or tokens:k"]),
        (SCENES, ["mixing.level='blocks:1'"], ["mixing.level=blocks:1: must be pixels"]),
        (
            SCENES,
            ["mixing.level='tokens:1'", "model.patch_dropout=0.5"],
            ["mixing.level=tokens:1, model.patch_dropout=0.5", "mixing.level=tokens:0 or pixels"],
        ),
        (SCENES, ["model.patch_dropout=1"], ["model.patch_dropout=1", "at least 0 and less than 1"]),
        (SCENES, ["trainer.max_steps=null"], ["trainer.max_steps and trainer.max_epochs are not set", "trainer.max_epochs=10"]),
        (SCENES, ["launcher.kind=slurm"], ["launcher.kind=slurm, trainer.devices=null", "set trainer.devices"]),
        (SCENES, ["launcher.kind=slurm", "trainer.devices=2", "launcher.time_min=2"], ["signal_s=120, launcher.time_min=2", "raise"]),
        (SCENES, ["launcher.kind=slurm", "trainer.devices=2", "launcher.sbatch=[exclusive]"], ["sbatch=[exclusive]", "long options"]),
        (
            SCENES,
            ["launcher.kind=slurm", "trainer.devices=2", "launcher.node_rank=1"],
            ["launcher.node_rank=1: has no effect with launcher.kind=slurm; remove it, or choose launcher.kind=torchrun"],
        ),
        (
            SCENES,
            ["launcher.partition=gpu", "launcher.wait=true", "launcher.setup=[a]"],
            [
                "launcher.partition=gpu, launcher.setup=[a], launcher.wait=true: have no effect with launcher.kind=local",
                "remove them, or choose launcher.kind=slurm",
            ],
        ),
        (
            SCENES,
            ["launcher.kind=torchrun", "launcher.qos=x"],
            ["launcher.qos=x: has no effect with launcher.kind=torchrun", "launcher.kind=slurm"],
        ),
        (SCENES, ["launcher.kind=torchrun", "launcher.node_rank=1"], ["launcher.node_rank=1, trainer.num_nodes=1", "from 0 to 0", "raise"]),
        (SCENES, ["launcher.kind=torchrun", "trainer.num_nodes=2"], ["launcher.rdzv_endpoint=null", "HOST:PORT", "node0:29500"]),
        (
            SCENES,
            ["launcher.kind=torchrun", "trainer.num_nodes=2", "launcher.rdzv_endpoint='a:1'", "launcher.node_rank=2"],
            ["launcher.node_rank=2, trainer.num_nodes=2", "from 0 to 1"],
        ),
        (SCENES, ["trainer.max_epochs=2"], ["trainer.max_steps=10, trainer.max_epochs=2", "only one"]),
        (
            SHARDS,
            ["data.kind=stream", "trainer.max_steps=null", "trainer.max_epochs=2"],
            ["trainer.max_epochs=2", "no epochs", "data.epoch_samples"],
        ),
        (
            SCENES,
            ["evaluation.tasks=[retrival]"],
            ["evaluation.tasks=retrival: there is no evaluation", "'retrival'; nearest: retrieval", "grounding"],
        ),
        (
            SCENES,
            ["evaluation.classes=imagnet"],
            ["evaluation.classes=imagnet: must be a .json or .txt file, or imagenet; nearest: imagenet"],
        ),
        (
            SCENES,
            ["evaluation.templates=t.csv"],
            ["evaluation.templates=t.csv: must be a .json or .txt file, or openai_imagenet or simple"],
        ),
        (SCENES, ["evaluation.retrieval_folds=0"], ["evaluation.retrieval_folds=0: must be at least 1"]),
        (
            SCENES,
            ["trainer.devices=3", "pta.batch_size=66", "mixing.kind=none"],
            ["data.global_batch_size=256", "number of ranks, 3", "data.global_batch_size=258"],
        ),
        (SCENES, ["trainer.devices=2", "pta.batch_size=63"], ["pta.batch_size=63", "number of ranks, 2", "pta.batch_size=64"]),
        (SCENES, ["data.global_batch_size=1"], ["data.global_batch_size=1", "at least 2"]),
        (SCENES, ["mixing.group_size=48"], ["mixing.group_size=48, data.global_batch_size=256", "mixing.group_size=16"]),
        (SCENES, ["trainer.devices=2", "data.global_batch_size=32"], ["batch of a rank, 16", "mixing.group_size=16"]),
        (SCENES, ["data.global_batch_size=17"], ["batch of a rank, 17", "data.global_batch_size=32"]),
        (SCENES, ["pta.batch_size=1", "pta.negative_frac=0.5"], ["pta.negative_frac=0.5, pta.batch_size=1", "pta.batch_size=2 or more"]),
        (
            SCENES,
            ["trainer.micro_batch_size=100"],
            ["trainer.micro_batch_size=100", "a rank, 256", "group_size=32", "micro_batch_size=128"],
        ),
        (
            SCENES,
            ["trainer.micro_batch_size=16"],
            ["trainer.micro_batch_size=16", "multiple of mixing.group_size=32", "micro_batch_size=32"],
        ),
        (
            SCENES,
            ["trainer.micro_batch_size=100", "mixing.kind=none"],
            ["divide the batch of a rank, 256; e.g. trainer.micro_batch_size=128"],
        ),
        (
            SCENES,
            ["trainer.cpu_offload=true"],
            ["trainer.cpu_offload=true: has no effect with trainer.strategy=ddp", "trainer.strategy=fsdp"],
        ),
        (SCENES, ["mixing.min_side=0.8"], ["mixing.min_side=0.8, mixing.max_side=0.75", "must not exceed"]),
        (SCENES, ["mixing.warmup_frac=0.6", "mixing.stop_frac=0.5"], ["mixing.warmup_frac=0.6, mixing.stop_frac=0.5", "lower"]),
        (SCENES, ["optim.min_lr=1"], ["optim.min_lr=1, optim.lr=0.0005", "lower optim.min_lr"]),
        (
            SCENES,
            ["optim.schedule=constant_with_cooldown", "optim.warmup_frac=0.9"],
            ["optim.warmup_frac=0.9, optim.cooldown_frac=0.2", "at most 1"],
        ),
        (SCENES, ["optim.momentum=0.5"], ["optim.momentum=0.5: has no effect with optim.kind=adamw", "optim.kind=muon or sgd"]),
        (
            SCENES,
            ["optim.kind=lion", "optim.eps=1"],
            ["optim.eps=1: has no effect with optim.kind=lion", f"optim.kind={' or '.join(WITH_EPS)}"],
        ),
        (
            SCENES,
            ["optim.kind=adafactor", "trainer.strategy=fsdp"],
            ["optim.kind=adafactor, trainer.strategy=fsdp: this optimizer needs whole weights", "trainer=ddp"],
        ),
        (VQA, ["optim.kind=muon"], ["optim.kind=muon, tune.towers=frozen", "which are frozen", "tune.towers=last or all"]),
        (
            SCENES,
            ["optim.ema=0.99", "trainer.precision=bf16_pure"],
            ["optim.ema=0.99, trainer.precision=bf16_pure", "trainer.precision=bf16_mixed"],
        ),
        (SCENES, ["evaluation.weights=ema"], ["evaluation.weights=ema: has no effect with optim.ema=null"]),
        (
            SCENES,
            ["mixing.kind=none", "pta.enabled=false", "optim.lr_scale.head=2"],
            ["optim.lr_scale.head=2: has no effect with pta.enabled=false", "pta.enabled=true"],
        ),
        (
            VQA,
            ["optim.lr_scale.image=0.5", "optim.layer_decay=0.9"],
            ["optim.lr_scale.image=0.5, optim.layer_decay=0.9: have no effect", "tune.towers=last or all"],
        ),
        (
            SCENES,
            ["tune.towers=all", "tune.lr_scale=1"],
            [
                "tune.towers=all, tune.lr_scale=1: have no effect with task=pretrain",
                "remove them, or choose another task than pretrain",
            ],
        ),
        (SCENES, ["vqa.kind=open"], ["vqa.kind=open: has no effect with task=pretrain; remove it, or choose task=vqa"]),
        (VQA, ["captioning.num_beams=5"], ["captioning.num_beams=5: has no effect with task=vqa", "task=captioning"]),
        (CAPTIONING, ["vqa.num_answers=5"], ["vqa.num_answers=5: has no effect with task=captioning", "task=vqa"]),
        (
            VQA,
            ["vqa.num_answers=5"],
            ["vqa.num_answers=5: has no effect with vqa.kind=multiple_choice", "vqa.kind=open or both"],
        ),
        (VQA, ["tune.last_blocks=1"], ["tune.last_blocks=1: has no effect with tune.towers=frozen", "tune.towers=last"]),
        (VQA, ["tune.lr_scale=1"], ["tune.lr_scale=1: has no effect with tune.towers=frozen", "tune.towers=last or all"]),
        (
            CAPTIONING,
            ["captioning.decoder=gpt2", "captioning.vocab_size=1000", "captioning.dim=128"],
            ["captioning.vocab_size=1000, captioning.dim=128: have no effect with captioning.decoder=gpt2", "captioning.decoder=null"],
        ),
        (SCENES, ["mixing.kind=none", "pictures.num_mixed=3"], ["pictures.num_mixed=3: has no effect with mixing.kind=none"]),
        (
            SCENES,
            ["mixing.kind=none", "pta.enabled=false", "pictures.num_heat_maps=3"],
            ["pictures.num_heat_maps=3: has no effect with pta.enabled=false"],
        ),
        (
            SCENES,
            ["evaluation.tasks=[]", "evaluation.every_n_steps=2"],
            ["evaluation.every_n_steps=2: has no effect with evaluation.tasks=[]"],
        ),
        (
            SCENES,
            ["evaluation.tasks=[]", "evaluation.batch_size=8"],
            ["evaluation.batch_size=8: has no effect with evaluation.tasks=[]"],
        ),
        (SCENES, ["mixing.ratio=0", "mixing.gamma=3"], ["mixing.gamma=3: has no effect with mixing.ratio=0"]),
        (SCENES, ["mixing.ratio=0", "pta.weight=3"], ["pta.weight=3: has no effect with mixing.ratio=0"]),
        (VQA, ["model.patch_dropout=0.5"], ["model.patch_dropout=0.5: has no effect with task=vqa", "task=pretrain"]),
        (
            VQA,
            ["mixing.gamma=2", "pta.weight=2", "loss.tile_rows=8"],
            ["pta.weight=2, mixing.gamma=2, loss.tile_rows=8: have no effect with task=vqa"],
        ),
        (VQA, ["data.region_shards=b"], ["data.region_shards=b: has no effect with task=vqa", "task=pretrain"]),
        (SCENES, ["model.init_logit_scale=200"], ["model.init_logit_scale=200, model.max_logit_scale=100", "raise"]),
    ],
    ids=lambda value: value[0],
)
def test_a_contradiction_gets_one_clear_message(base, overrides, parts):
    (message,) = problems_of(base + overrides)
    assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize(
    "overrides",
    [
        ["loss.kind=siglip"],
        ["mixing.compute=replace", "mixing.targets=one_hot"],
        ["mixing.kind=none", "mixing.compute=replace"],
        ["mixing.level='tokens:0'", "model.patch_dropout=0.5"],
        ["mixing.level='tokens:1'", "model.patch_dropout=0.5", "mixing.kind=none"],
        ["mixing.ratio=0", "mixing.group_size=48"],
        ["mixing.kind=none", "data.global_batch_size=17"],
        ["mixing.kind=none", "pta.enabled=false", "pta.batch_size=1", "pta.negative_frac=0.5"],
        ["trainer.devices=2", "pta.batch_size=2", "pta.negative_frac=0.5"],
        ["trainer.devices=2", "pta.batch_size=2"],
        ["optim.schedule=cosine", "optim.warmup_frac=0.9"],
        ["optim.kind=muon", "trainer.strategy=fsdp", "optim.ema=0.99", "evaluation.weights=ema", "optim.layer_decay=0.8"],
        ["optim.kind=adafactor", "optim.lr_scale.text=0", "trainer.precision=bf16_pure"],
        ["trainer.max_steps=null", "trainer.max_epochs=0.5"],
    ],
)
def test_what_does_not_contradict_is_accepted(overrides):
    assert problems(config(SCENES + overrides)) == []


@pytest.mark.parametrize("mixing", ["none", "cutmix", "mixup", "mixgen"])
def test_other_mixings_need_no_region_shards(mixing):
    cfg = compose(["data.train_shards=a", "trainer.max_steps=1", "model=tiny", f"mixing={mixing}"])
    assert cfg.mixing.kind == mixing
    assert not cfg.pta.enabled


RANGES = {key: option.facts.within for key, option in schema_options().items() if isinstance(option.facts.within, Range)}


@pytest.mark.parametrize("key", RANGES)
def test_a_number_out_of_range_is_refused(key):
    allowed = RANGES[key]
    value = allowed.low if allowed.above else allowed.low - 1
    messages = problems_of([*SCENES, f"{key}={value}"])
    assert [message for message in messages if message.startswith(f"{key}={value}: must be {allowed}")]


@pytest.mark.parametrize("value", ["-0.1", "1.1", ".nan", ".inf"])
def test_a_share_is_from_0_to_1(value):
    (message,) = problems_of([*SCENES, f"mixing.ratio={value}"])
    assert "mixing.ratio=" in message
    assert "from 0 to 1; the default is 1" in message


def test_every_number_has_a_range():
    numbers = {key for key, option in schema_options().items() if "number" in option.takes and not option.takes.startswith("a list")}
    assert numbers == set(RANGES)


def test_all_problems_come_at_once():
    messages = problems_of(["data.train_shards=a", "mixing.ratio=2", "optim.lr=0", "evaluation.tasks=[x]", "model.architecture=nope"])
    for key in (
        "mixing.ratio=2",
        "optim.lr=0",
        "evaluation.tasks=x: ",
        "model.architecture=nope",
        "trainer.max_steps",
    ):
        assert [message for message in messages if message.startswith(key)], key


def test_the_batch_sizes_that_messages_propose_fit_together():
    """Whoever types what all messages say is refused no more."""
    cfg = to_root(OmegaConf.from_dotlist(SCENES))
    keys = ("trainer.devices", "data.global_batch_size", "mixing.group_size", "trainer.micro_batch_size", "mixing.ratio", "pta.batch_size")
    num_refused = 0
    for values in itertools.product((1, 3, 8), (2, 17, 100, 256), (2, 32, 48), (None, 16, 48, 100), (0.05, 1.0), (1, 64)):
        for key, value in zip(keys, values, strict=True):
            set_value(cfg, key, value)
        cfg.pta.negative_frac = 0.5
        messages = problems(cfg)
        num_refused += bool(messages)
        for message in messages:
            if message.endswith("set it to null"):
                cfg.trainer.micro_batch_size = None
            else:
                key, value = re.search(r"(?:e\.g\.|set) ([a-z_.]+)=([0-9.]+)", message).groups()
                set_value(cfg, key, float(value) if key == "mixing.ratio" else int(value))
        assert problems(cfg) == [], (values, messages)
    assert num_refused > 100


def set_value(cfg, key, value):
    section, name = key.split(".")
    setattr(getattr(cfg, section), name, value)


@pytest.mark.parametrize(
    "words",
    [
        ["mixing.kind=none", "pta.enabled=false", "pictures.num_mixed=0", "pictures.num_heat_maps=0"],
        ["evaluation.tasks=[]", "evaluation.every_n_steps=null"],
        ["mixing.ratio=0", "pta.enabled=false"],
    ],
)
def test_what_is_off_may_be_switched_off_again(words):
    cfg = config(SCENES + words)
    assert unused_options(cfg, set(), lambda: cfg) == []


@pytest.mark.parametrize("mixing", groups()["mixing"])
@pytest.mark.parametrize("words", [[], ["evaluation=[]"], ["loss=siglip"]])
def test_an_experiment_composes_with_each_mixing(mixing, words):
    assert compose(["experiment=demo", f"mixing={mixing}", *words]).name == "demo"


def test_an_experiment_composes_without_mixed_rows():
    assert compose(["experiment=demo", "mixing.ratio=0"]).mixing.kind == "none"


def test_loss_terms_learn_at_the_heads_rate():
    cfg = config([*SCENES, "mixing.kind=none", "pta.enabled=false", "loss.terms=[x]", "optim.lr_scale.head=2"])
    assert unused_options(cfg, set(), lambda: cfg) == []
