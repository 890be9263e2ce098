"""The values that each number of the configuration may take, whatever the others are."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; ``above`` and ``below`` leave the bound itself out."""

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        enough = value > self.low if self.above else value >= self.low
        return enough and (value < self.high if self.below else value <= self.high) and math.isfinite(value)

    def __str__(self) -> str:
        low = f"more than {self.low:g}" if self.above else f"at least {self.low:g}"
        if self.high == math.inf:
            return low
        if self.above or self.below:
            return f"{low} and {'less than' if self.below else 'at most'} {self.high:g}"
        return f"from {self.low:g} to {self.high:g}"


COUNT = Range(1)
NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, above=True)
SHARE = Range(0, 1)

RANGES = {
    "seed": NOT_NEGATIVE,
    "data.global_batch_size": Range(2),
    "data.shard_cache_gb": POSITIVE,
    "data.num_workers": NOT_NEGATIVE,
    "data.prefetch_batches": COUNT,
    "data.shuffle_window_shards": COUNT,
    "data.max_bad_frac": SHARE,
    "data.epoch_samples": COUNT,
    "data.max_image_px": COUNT,
    "data.max_image_mb": POSITIVE,
    "data.max_phrases": COUNT,
    "data.augmentation.color_jitter_prob": SHARE,
    "data.augmentation.gray_prob": SHARE,
    "data.scenes.num_train": COUNT,
    "data.scenes.num_regions": COUNT,
    "data.scenes.num_val": COUNT,
    "data.scenes.num_zero_shot": COUNT,
    "data.scenes.image_size_px": Range(32),
    "data.scenes.misaligned_frac": SHARE,
    "data.scenes.seed": NOT_NEGATIVE,
    "model.image_size_px": COUNT,
    "model.context_length": Range(2),
    "model.init_logit_scale": POSITIVE,
    "model.max_logit_scale": POSITIVE,
    "model.patch_dropout": Range(0, 1, below=True),
    "pta.block": COUNT,
    "pta.hidden_dim": Range(2),
    "pta.weight": NOT_NEGATIVE,
    "pta.min_cover": SHARE,
    "pta.negative_frac": SHARE,
    "pta.first_samples": NOT_NEGATIVE,
    "pta.every_n_steps": COUNT,
    "pta.batch_size": COUNT,
    "mixing.ratio": SHARE,
    "mixing.min_side": SHARE,
    "mixing.max_side": SHARE,
    "mixing.gamma": NOT_NEGATIVE,
    "mixing.warmup_frac": SHARE,
    "mixing.stop_frac": SHARE,
    "mixing.group_size": Range(2),
    "mixing.beta": POSITIVE,
    "loss.tile_rows": COUNT,
    "optim.lr": POSITIVE,
    "optim.weight_decay": NOT_NEGATIVE,
    "optim.beta1": Range(0, 1, below=True),
    "optim.beta2": Range(0, 1, below=True),
    "optim.eps": POSITIVE,
    "optim.warmup_frac": SHARE,
    "optim.cooldown_frac": SHARE,
    "optim.min_lr": NOT_NEGATIVE,
    "optim.clip_grad_norm": POSITIVE,
    "trainer.max_steps": COUNT,
    "trainer.max_epochs": POSITIVE,
    "trainer.devices": COUNT,
    "trainer.num_nodes": COUNT,
    "trainer.log_every_n_steps": COUNT,
    "trainer.num_threads": COUNT,
    "trainer.micro_batch_size": COUNT,
    "trainer.peak_tflops": POSITIVE,
    "tune.last_blocks": COUNT,
    "tune.lr_scale": NOT_NEGATIVE,
    "tune.block": COUNT,
    "tune.items_per_image": COUNT,
    "vqa.num_answers": COUNT,
    "vqa.dim": COUNT,
    "vqa.layers": COUNT,
    "vqa.heads": COUNT,
    "vqa.dropout": Range(0, 1, below=True),
    "captioning.vocab_size": Range(514, 49408),
    "captioning.dim": COUNT,
    "captioning.layers": COUNT,
    "captioning.heads": COUNT,
    "captioning.dropout": Range(0, 1, below=True),
    "captioning.max_length": COUNT,
    "captioning.label_smoothing": Range(0, 1, below=True),
    "captioning.num_beams": COUNT,
    "captioning.length_penalty": NOT_NEGATIVE,
    "captioning.no_repeat_ngram_size": NOT_NEGATIVE,
    "checkpoint.every_n_steps": COUNT,
    "checkpoint.every_n_minutes": POSITIVE,
    "checkpoint.keep_last": COUNT,
    "evaluation.every_n_steps": COUNT,
    "evaluation.batch_size": COUNT,
    "evaluation.captions_per_image": COUNT,
    "evaluation.retrieval_folds": COUNT,
    "evaluation.mi_pairs": Range(2),
    "evaluation.num_train_pairs": Range(2),
    "evaluation.noise_min_score": NOT_NEGATIVE,
    "launcher.node_rank": NOT_NEGATIVE,
    "launcher.time_min": COUNT,
    "launcher.gpus_per_node": NOT_NEGATIVE,
    "launcher.cpus_per_task": COUNT,
    "launcher.mem_gb": POSITIVE,
    "launcher.signal_s": Range(1, 65535),
    "launcher.max_requeues": NOT_NEGATIVE,
    "launcher.max_parallel": COUNT,
    "pictures.num_mixed": NOT_NEGATIVE,
    "pictures.num_heat_maps": NOT_NEGATIVE,
}
