"""The typed configuration: every key that people can set, its type, its default and what it does.

Plain dataclasses, read by Hydra (``config.store``) and by ``docs/configuration.md``, which is generated from the help texts here.
Fractions of the run are of the samples planned at the first start. ``None`` means "decided from the rest of the configuration".
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


def option(default: Any, help: str) -> Any:
    """A dataclass field with a help text; mutable defaults are copied per instance."""
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: default.copy(), metadata={"help": help})
    if isinstance(default, type):
        return field(default_factory=default, metadata={"help": help})
    return field(default=default, metadata={"help": help})


Task = StrEnum("Task", ["pretrain", "vqa", "captioning"])
DataKind = StrEnum("DataKind", ["scenes", "shards", "stream"])
MixingKind = StrEnum("MixingKind", ["timix", "cutmix", "mixup", "mixgen", "none"])
Compute = StrEnum("Compute", ["extra", "replace"])
Lam = StrEnum("Lam", ["area", "relevance"])
Targets = StrEnum("Targets", ["one_hot", "self"])
PtaGrad = StrEnum("PtaGrad", ["full", "trunk", "head"])
LossKind = StrEnum("LossKind", ["info_nce", "siglip"])
Negatives = StrEnum("Negatives", ["all_ranks", "own_rank"])
ScheduleKind = StrEnum("ScheduleKind", ["cosine", "constant", "constant_with_cooldown"])
NonFinite = StrEnum("NonFinite", ["stop", "skip"])
Precision = StrEnum("Precision", ["auto", "fp32", "bf16_mixed", "bf16_pure"])
LoggerKind = StrEnum("LoggerKind", ["csv", "tensorboard", "wandb"])
Accelerator = StrEnum("Accelerator", ["auto", "cpu", "gpu"])
Strategy = StrEnum("Strategy", ["ddp", "fsdp"])
Prepare = StrEnum("Prepare", ["flickr8k", "visual7w"])
Remote = StrEnum("Remote", ["cache", "range"])
Mode = StrEnum("Mode", ["min", "max"])
LauncherKind = StrEnum("LauncherKind", ["local", "torchrun", "slurm"])
VqaKind = StrEnum("VqaKind", ["multiple_choice", "open", "both"])
TunedTowers = StrEnum("TunedTowers", ["frozen", "last", "all"])


@dataclass
class AugmentationConfig:
    scale: list[float] = option([0.9, 1.0], "Random resized crop: smallest and largest share of the image's area.")
    ratio: list[float] = option([0.75, 1.3333], "Random resized crop: smallest and largest aspect ratio.")
    flip: bool = option(False, "Flip half of the images left to right. Off: captions may say 'left'.")
    color_jitter: list[float] = option(
        [0.0, 0.0, 0.0, 0.0],
        "Strengths of random changes: brightness, contrast, saturation (1 +- strength), hue (share of the circle).",
    )
    color_jitter_prob: float = option(0.8, "Share of the images whose colours color_jitter changes, 0 to 1.")
    gray_prob: float = option(0.0, "Share of the images that lose their colours, 0 to 1. Captions may name colours.")


@dataclass
class ScenesConfig:
    """The embedded data set (``data=scenes``)."""

    num_train: int = option(20000, "Training pairs.")
    num_regions: int = option(4000, "Images with boxes that teach PTA.")
    num_val: int = option(512, "Clean evaluation scenes.")
    num_zero_shot: int = option(960, "Single-object images for zero-shot classification.")
    image_size_px: int = option(64, "Side of the generated square images, in pixels.")
    misaligned_frac: float = option(0.5, "Share of training captions that leave objects out or name absent ones, 0 to 1.")
    seed: int = option(0, "Seed of the generator; not the seed of the run.")


@dataclass
class DataConfig:
    kind: DataKind = option(
        DataKind.shards, "scenes: the embedded data set; shards: indexed tar shards; stream: tars that cannot be indexed."
    )
    train_shards: Any = option(
        None, "Image-text pairs: a folder, a pattern (quote it), a URL, or a list; items may be {path: ..., weight: ...}."
    )
    val_shards: Any = option(None, "Pairs for evaluation (and boxes, for grounding), given like train_shards.")
    region_shards: Any = option(None, "Images with boxes and phrases that teach PTA, given like train_shards.")
    zero_shot_shards: Any = option(
        None, "Labelled images, for zero-shot classification and to test probes: shards, or a folder whose sub-folders are the classes."
    )
    probe_train_shards: Any = option(None, "Labelled images that linear_probe and knn learn from, given like zero_shot_shards.")
    grounding_shards: Any = option(None, "Images with boxes to judge PTA; null takes val_shards where it has boxes.")
    noise_shards: Any = option(None, "Held-out pairs of which it is known how well they match, for evaluation.tasks=[noise].")
    prepare: Prepare | None = option(
        None, "flickr8k or visual7w: first turn its published files in real_data_dir into shards in cache_dir."
    )
    cache_dir: str = option("data", "Folder for data that timix-pl makes: the generated scenes, the prepared shards.")
    remote: Remote = option(
        Remote.cache, "Shards at URLs: fetched whole into shard_cache_dir (cache), or each sample in a range request (range)."
    )
    shard_cache_dir: str | None = option(None, "Local folder for remote shards and their indexes; null: shards inside cache_dir.")
    shard_cache_gb: float = option(50.0, "Bound on the remote shards kept there, in GB (1e9 bytes); the least recently opened go first.")
    allow_pipe: bool = option(False, "data=stream: take pipe:COMMAND for shards, which runs COMMAND in a shell.")
    global_batch_size: int = option(
        256, "Pairs (task=vqa, captioning: images, 64 by default) per optimizer step over all ranks; divisible by the number of ranks."
    )
    num_workers: int = option(2, "Loader processes per rank; 0 loads in the training process.")
    prefetch_batches: int = option(4, "Batches prepared ahead by each worker.")
    shuffle_window_shards: int = option(8, "Samples are shuffled inside windows of this many (shuffled) shards.")
    max_bad_frac: float = option(
        0.01, "Stop the run when more than this share of the samples read (taken as 1,000 at least) is unusable, 0 to 1."
    )
    allow_changed: bool = option(False, "Go on although the training shards differ from those that the run started with.")
    epoch_samples: int | None = option(
        None, "Samples that trainer.max_epochs counts as one epoch; null: all training pairs. The order does not depend on it."
    )
    audit: bool = option(False, "Write audit-RANK.jsonl: a line for each sample trained on, with its position, shard and key.")
    max_image_px: int = option(100_000_000, "Refuse to decode images of more pixels than this.")
    max_image_mb: float = option(
        100.0, "Refuse to read images, texts or JSON of more megabytes than this (not with data=stream, which reads shards whole)."
    )
    max_phrases: int = option(8, "Phrases used of each region image per step; more are drawn at random.")
    phrase_template: str = option("{}", "How a phrase becomes a caption, e.g. 'a photo of a {}'.")
    augmentation: AugmentationConfig = option(AugmentationConfig, "Training crops, flips (boxes move along) and colours.")
    scenes: ScenesConfig = option(ScenesConfig, "The embedded data set.")


@dataclass
class ModelConfig:
    architecture: str = option("ViT-B-32", "Any open_clip architecture name, or 'timix-tiny'.")
    pretrained: str | None = option(None, "An open_clip pretrained tag or the path of a local weights file.")
    text_model: str | None = option(None, "Hugging Face text tower in place of the architecture's own: a hub name or a local folder.")
    text_pretrained: bool = option(True, "Load the Hugging Face tower's weights; false takes its configuration alone.")
    image_size_px: int | None = option(None, "Side of the input images, in pixels; null takes the architecture's.")
    context_length: int | None = option(None, "Tokens per caption; null takes the architecture's.")
    init_logit_scale: float | None = option(None, "Inverse temperature at the start; null: 1 / 0.07 for info_nce, 10 for siglip.")
    max_logit_scale: float = option(100.0, "Upper bound of the inverse temperature.")
    patch_dropout: float = option(0.0, "Share of the patches of clean and mixed images that a training step drops (vision transformers).")


@dataclass
class PtaConfig:
    """The patch-text alignment head and what teaches it."""

    enabled: bool = option(True, "Build the head; mixing=timix needs it.")
    block: int = option(6, "Patch features are taken after this block of the image tower, counted from 1.")
    hidden_dim: int | None = option(None, "Channels inside the head; null takes the image tower's width.")
    weight: float = option(1.0, "Weight of the PTA loss in the sum.")
    min_cover: float = option(0.0, "Share of a patch's area that a box must cover to make it positive; 0: any touch.")
    grad: PtaGrad = option(PtaGrad.full, "full: gradients reach both towers; trunk: the image tower up to the block; head: the head alone.")
    negative_frac: float = option(0.0, "Share of extra phrases taken from other images, labelled 0 everywhere.")
    caption_positive: bool = option(False, "Whole captions of region images as positive on every patch (as the paper's code does).")
    first_samples: int = option(0, "Pairs consumed before mixing may start, so that PTA is taught first.")
    every_n_steps: int = option(1, "A region batch every n steps.")
    batch_size: int = option(64, "Region images per region batch, over all ranks.")


@dataclass
class MixingConfig:
    kind: MixingKind = option(MixingKind.timix, "timix, cutmix, mixup, mixgen or none (plain CLIP).")
    ratio: float = option(1.0, "Share of each group's rows that are mixed, 0 to 1; 0 is plain CLIP.")
    compute: Compute = option(Compute.extra, "extra: mixed images on top of the clean ones; replace: in place of them.")
    lam: Lam = option(Lam.area, "area: share of the pixels kept; relevance: share of the relevance kept (timix only).")
    targets: Targets = option(Targets.self, "one_hot, or self: each one-hot replaced by the clean pass's own softmax.")
    min_side: float = option(0.35, "Smallest side of the window, as a share of the patch grid's shorter side.")
    max_side: float = option(0.75, "Largest side of the window, likewise.")
    gamma: float = option(1.0, "Weight of the mixed loss (compute=extra).")
    warmup_frac: float = option(0.0, "Share of the run over which mixing ramps up from 0.")
    stop_frac: float = option(1.0, "Share of the run after which mixing ends.")
    level: str = option(
        "pixels", "Where images are mixed: pixels, or tokens:k, the tokens after block k of the image tower (0: the patch embeddings)."
    )
    group_size: int = option(32, "Rows that find their partners among themselves; divides every rank's batch.")
    beta: float = option(1.0, "Mixup: lam is drawn from Beta(beta, beta).")


@dataclass
class LossConfig:
    kind: LossKind = option(LossKind.info_nce, "info_nce, or siglip (pairwise sigmoid).")
    negatives: Negatives = option(Negatives.all_ranks, "all_ranks: out of the global batch; own_rank: out of each rank's own batch alone.")
    tile_rows: int | None = option(None, "Rows and columns of the tiles of logits; null: 512 on CPU, 4096 on a GPU. The loss is the same.")


@dataclass
class OptimConfig:
    lr: float = option(5e-4, "Peak learning rate.")
    weight_decay: float = option(0.2, "AdamW weight decay; not on biases, norms, embeddings' gains or logit_scale.")
    beta1: float = option(0.9, "AdamW's first moment decay.")
    beta2: float = option(0.98, "AdamW's second moment decay.")
    eps: float = option(1e-6, "AdamW's epsilon.")
    schedule: ScheduleKind = option(ScheduleKind.cosine, "cosine, constant, or constant_with_cooldown; a function of samples consumed.")
    warmup_frac: float = option(0.05, "Share of the run over which the learning rate rises linearly.")
    cooldown_frac: float = option(0.2, "constant_with_cooldown: share of the run over which it falls to min_lr at the end.")
    min_lr: float = option(0.0, "Learning rate at the end of the schedule.")
    clip_grad_norm: float | None = option(1.0, "Largest norm of the gradient; null: no clipping (the norm is logged all the same).")


@dataclass
class TrainerConfig:
    max_steps: int | None = option(None, "Optimizer steps of the whole run.")
    max_epochs: float | None = option(None, "Passes over the training pairs, in place of max_steps; fractions are allowed.")
    accelerator: Accelerator = option(Accelerator.auto, "auto, cpu or gpu.")
    devices: int | None = option(None, "Processes on this machine; null: all GPUs, or one CPU process.")
    num_nodes: int = option(1, "Machines.")
    strategy: Strategy = option(
        Strategy.ddp,
        "Several processes: ddp, each with a copy of the model; fsdp, weights, gradients and optimizer state in shards (FSDP2).",
    )
    cpu_offload: bool = option(False, "strategy=fsdp: keep weights and optimizer state in CPU memory.")
    micro_batch_size: int | None = option(
        None,
        "Pairs (images) that a rank takes through the model at once; its batch is cut into so many, with the same gradients. null: all.",
    )
    precision: Precision = option(Precision.auto, "auto: bf16_mixed on GPUs that compute in it, else fp32.")
    log_every_n_steps: int = option(10, "Write a row of metrics.csv every n steps.")
    non_finite: NonFinite = option(NonFinite.stop, "A non-finite loss or gradient: stop the run, or skip the step and count it.")
    progress_bar: bool = option(True, "Show a progress bar.")
    gradient_checkpointing: bool = option(
        False, "Recompute each transformer block in the backward pass: less memory, one more forward pass."
    )
    compile: bool = option(False, "Compile each transformer block with torch.compile; needs a C++ compiler.")
    num_threads: int | None = option(None, "CPU threads per process; null: PyTorch's choice.")
    peak_tflops: float | None = option(
        None, "TFLOP/s of one device at best, in the precision used, for MFU and dry_run; null: known for some GPUs."
    )


@dataclass
class TuneConfig:
    """How a task is learnt (``task=vqa``, ``task=captioning``)."""

    towers: TunedTowers = option(
        TunedTowers.frozen,
        "frozen: the head alone learns; last: also the last blocks of the towers that it reads; all: all of these towers.",
    )
    last_blocks: int = option(2, "towers=last: so many blocks of each tower.")
    lr_scale: float = option(0.1, "towers=last, all: the towers' learning rate, as a share of optim.lr, which is the head's.")
    block: int | None = option(
        None, "Patch features are taken after this block of the image tower, counted from 1; null: the last (some towers: pta.block)."
    )
    items_per_image: int = option(4, "Questions, or captions, used of an image in a step; of more, the next ones in each epoch.")


@dataclass
class VqaConfig:
    """Visual question answering (``task=vqa``)."""

    kind: VqaKind = option(
        VqaKind.multiple_choice, "multiple_choice: which of a question's choices is right; open: one of the most frequent answers; or both."
    )
    num_answers: int = option(3000, "kind=open, both: answers that the model knows, the most frequent ones in the training shards.")
    use_image: bool = option(True, "false: a text-only answerer, to see how far one comes without looking.")
    dim: int = option(256, "Channels inside the fusion; a multiple of vqa.heads.")
    layers: int = option(2, "Layers of the fusion, in which question tokens attend to one another and to patches.")
    heads: int = option(4, "Attention heads of the fusion.")
    dropout: float = option(0.1, "Dropout inside the fusion.")


@dataclass
class CaptioningConfig:
    """The decoder of ``task=captioning``, and how it writes."""

    decoder: str | None = option(
        None, "Pretrained language model of transformers: a hub name or a local folder. null: a GPT-2 from nothing, of the sizes below."
    )
    vocab_size: int = option(8192, "decoder=null: size of the vocabulary, CLIP's with its first merges alone; 49408 is all of it.")
    dim: int = option(256, "decoder=null: channels; a multiple of captioning.heads.")
    layers: int = option(3, "decoder=null: transformer blocks.")
    heads: int = option(4, "decoder=null: heads of each attention.")
    dropout: float = option(0.1, "decoder=null: dropout.")
    max_length: int = option(40, "Tokens of a caption at most; longer ones are cut.")
    label_smoothing: float = option(0.1, "Share of each target that is spread over the vocabulary, 0 to 1.")
    num_beams: int = option(3, "Captions that are followed at once when one is written; 1 is greedy.")
    length_penalty: float = option(1.0, "Beams are compared by log probability / length ** this; higher makes captions longer.")
    no_repeat_ngram_size: int = option(3, "No run of so many tokens is written twice in a caption; 0: any may.")


@dataclass
class CheckpointConfig:
    every_n_steps: int | None = option(1000, "Save every n steps; null: not by steps.")
    every_n_minutes: float | None = option(30.0, "Save every m minutes; null: not by time.")
    sharded: bool = option(True, "strategy=fsdp: a checkpoint is a folder that all ranks write; false: one file, put together on rank 0.")
    keep_last: int = option(2, "Step and time checkpoints that are kept.")
    monitor: str | None = option("retrieval/mean_recall", "Metric whose best value is kept as best.ckpt; null: none.")
    mode: Mode | None = option(
        None, "Which value of checkpoint.monitor is the best: the largest (max) or the smallest (min); null: what the metric itself says."
    )


@dataclass
class EvaluationConfig:
    tasks: list[str] = option(["retrieval", "zero_shot", "grounding"], "What to evaluate; tasks without data are left out, and said so.")
    every_n_steps: int | None = option(1000, "Evaluate every n steps and at the end; null: at the end only.")
    batch_size: int = option(128, "Images per forward pass of an evaluation, per rank.")
    captions_per_image: int | None = option(
        None, "Retrieval takes the first so many captions of each image (5: COCO's protocol); null: all."
    )
    retrieval_folds: int = option(1, "Retrieval in so many equal parts of the set, averaged (5: COCO 1k out of its 5,000 test images).")
    classes: str | None = option(
        None, "Class names for zero_shot: a .json or .txt file, or imagenet; null: classes.json beside the images, else the folders' names."
    )
    templates: str | None = option(
        None,
        "Caption templates for zero_shot: a .json or .txt file, openai_imagenet or simple; null: those of the classes' file, else simple.",
    )
    mi_pairs: int = option(128, "mutual_information, noise: pairs per batch; the bound and the losses depend on it.")
    num_train_pairs: int = option(2048, "mutual_information, noise: size of the fixed sample of training pairs.")
    noise_field: str = option(
        "misalignment.kind",
        "noise: field of a sample's JSON: true, or a word other than none, where the caption is misaligned; or a score of the match.",
    )
    noise_min_score: float | None = option(None, "noise: where the field is a score, pairs below this are misaligned.")


@dataclass
class PicturesConfig:
    num_mixed: int = option(8, "Mixed pairs shown in the report; 0: none.")
    num_heat_maps: int = option(8, "Heat maps over evaluation images shown in the report; 0: none.")


@dataclass
class LoggerConfig:
    kind: LoggerKind = option(LoggerKind.csv, "csv, tensorboard or wandb; metrics.csv is always written too.")
    project: str = option("timix-pl", "wandb project.")
    offline: bool = option(True, "wandb: write locally; upload with 'wandb sync'.")
    label: str | None = option(None, "wandb: the run's name there; null: name, or in a sweep what the job overrides.")
    group: str | None = option(
        None, "wandb: what runs are shown together under; null: nothing, or where there is a label the folder above run_dir."
    )


@dataclass
class LauncherConfig:
    """Where a run's processes are started (``launcher=``)."""

    kind: LauncherKind = option(
        LauncherKind.local, "local: on this machine; torchrun: this node's share, under torchrun's agent; slurm: submit to SLURM."
    )
    rdzv_endpoint: str | None = option(None, "torchrun on several nodes: HOST:PORT of node 0, the same on every node.")
    node_rank: int = option(0, "torchrun on several nodes: this node's number, from 0.")
    partition: str | None = option(None, "slurm: partition; null: the cluster's default, here and below.")
    account: str | None = option(None, "slurm: account.")
    qos: str | None = option(None, "slurm: quality of service.")
    time_min: int = option(240, "slurm: time limit, in minutes; a run that needs longer goes on after a requeue.")
    gpus_per_node: int | None = option(None, "slurm: GPUs of each node; null: trainer.devices, none with trainer.accelerator=cpu.")
    cpus_per_task: int | None = option(None, "slurm: CPU cores of each rank; its loader processes need one each.")
    mem_gb: float | None = option(None, "slurm: memory of each node, in GB.")
    signal_s: int = option(120, "slurm: seconds before the time limit at which the run saves a checkpoint and is requeued.")
    max_requeues: int = option(100, "slurm: restarts of a job after which it is requeued no more.")
    max_parallel: int | None = option(None, "slurm: jobs of a sweep that run at a time; null: as many as the cluster lets.")
    setup: list[str] = option([], "slurm: shell commands before the run, e.g. 'module load cuda'.")
    sbatch: list[str] = option([], "slurm: further options of sbatch, as it takes them, e.g. --constraint=a100 or --exclusive.")
    wait: bool = option(False, "slurm: follow the job to its end; false: submit and return.")


@dataclass
class RootConfig:
    name: str = option("run", "Name of the run.")
    seed: int = option(0, "Seed of weights, order, augmentation and mixing.")
    run_dir: str = option("runs/${name}", "Folder for everything the run leaves.")
    resume: str = option("auto", "auto: go on from the newest checkpoint in run_dir; never: refuse a run_dir in use; or a checkpoint.")
    dry_run: bool = option(False, "Compose, validate, build on the meta device, print, and stop.")
    profile: list[int] | None = option(
        None, "Trace these steps, the first and the last one, counted from this start: [10,12]; writes run_dir/profile."
    )
    task: Task = option(Task.pretrain, "pretrain; or a task that is learnt on a pre-trained model: vqa or captioning.")
    init: str | None = option(
        None, "task=vqa or captioning: a run directory or checkpoint of timix-train, whose model is taken with its weights and settings."
    )
    real_data_dir: str | None = option(None, "Folder of the published data sets, for experiments that use them; null: $TIMIX_REAL_DATA.")
    data: DataConfig = option(DataConfig, "Data.")
    model: ModelConfig = option(ModelConfig, "Towers.")
    pta: PtaConfig = option(PtaConfig, "Patch-text alignment.")
    mixing: MixingConfig = option(MixingConfig, "Mixing.")
    loss: LossConfig = option(LossConfig, "Contrastive loss.")
    optim: OptimConfig = option(OptimConfig, "Optimizer and schedule.")
    trainer: TrainerConfig = option(TrainerConfig, "The loop.")
    tune: TuneConfig = option(TuneConfig, "Fine-tuning.")
    vqa: VqaConfig = option(VqaConfig, "Visual question answering.")
    captioning: CaptioningConfig = option(CaptioningConfig, "Captioning.")
    checkpoint: CheckpointConfig = option(CheckpointConfig, "Checkpoints.")
    evaluation: EvaluationConfig = option(EvaluationConfig, "Evaluation.")
    pictures: PicturesConfig = option(PicturesConfig, "Pictures in the report.")
    logger: LoggerConfig = option(LoggerConfig, "Logger.")
    launcher: LauncherConfig = option(LauncherConfig, "Launcher.")
