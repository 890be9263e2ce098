"""What the parameters that components name in their messages are called in a configuration. See :func:`timix_pl.core.errors.in_keys`.

A name that two components share is mapped where the one is built whose name is the exception: ``block`` of a fine-tuned model, for example.
"""

RUN = {
    "allow_changed": "data.allow_changed",
    "allow_pipe=True": "data=stream and data.allow_pipe=true",
    "architecture": "model.architecture",
    "block": "pta.block",
    "cache_dir": "data.shard_cache_dir",
    "checkpoint_gradients()": "trainer.gradient_checkpointing=true",
    "ckpt_path": "resume",
    "clip_grad_norm": "optim.clip_grad_norm",
    "evaluators": "evaluation.tasks",
    "global_batch_size": "data.global_batch_size",
    "group_size": "mixing.group_size",
    "image_size_px": "model.image_size_px",
    "kinds=['open']": "vqa.kind=open",
    "layer_decay": "optim.layer_decay",
    "lr": "optim.lr",
    "max_bad_frac": "data.max_bad_frac",
    "max_bytes": "data.shard_cache_gb",
    "max_image_mb": "data.max_image_mb",
    "max_image_px": "data.max_image_px",
    "max_side": "mixing.max_side",
    "min_side": "mixing.min_side",
    "mixing_level=": "mixing.level=tokens:",
    "mixing_level=None": "mixing.level=pixels",
    "non_finite": "trainer.non_finite",
    "optimizer": "optim.kind",
    "pairs": "data.train_shards",
    "patch_dropout": "model.patch_dropout",
    "pretrained": "model.pretrained",
    "regions": "data.region_shards",
    "SampleStream": "data=shards",
    "seed": "seed",
    "text_model": "model.text_model",
    "whole=False": "data.remote=range",
    "whole=True": "data.remote=cache",
    "window_shards": "data.shuffle_window_shards",
    "with_pta": "pta.enabled",
}

FINE_TUNED = {"block": "tune.block", "last_blocks": "tune.last_blocks", "towers": "tune.towers"}

DECODER = {"max_length": "captioning.max_length", "name": "captioning.decoder"}
