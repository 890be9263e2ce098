"""The columns of ``metrics.csv`` that training logs."""

from collections.abc import Mapping

from timix_pl.core.metric import Metric, Unit

TRAINING_COLUMNS: Mapping[str, Metric] = {
    "consumed": Metric(label="samples seen"),
    "train/loss/info_nce": Metric(Unit.nats, higher_is_better=False, label="InfoNCE"),
    "train/loss/siglip": Metric(Unit.nats, higher_is_better=False, label="SigLIP"),
    "train/loss/patch_text": Metric(Unit.nats, higher_is_better=False, label="patch-text"),
    "train/loss/patch_text_mixed": Metric(Unit.nats, higher_is_better=False, label="patch-text of mixed images"),
    "train/loss/*": Metric(higher_is_better=False, label="{}"),  # any other term, and the total
    "train/pta/precision": Metric(Unit.share, higher_is_better=True, label="precision"),
    "train/pta/recall": Metric(Unit.share, higher_is_better=True, label="recall"),
    "train/mixing/lam": Metric(label="lam"),
    "train/mixing/gamma": Metric(label="gamma"),
    "train/mixing/num_mixed": Metric(label="mixed images per step"),
    "train/mixing/side": Metric(label="window side", unit_word="patches"),
    "train/lr": Metric(label="learning rate"),
    "train/grad_norm": Metric(label="gradient norm"),
    "train/logit_scale": Metric(label="logit scale"),
    "train/num_items": Metric(label="questions or captions per step"),
    "train/num_skipped_steps": Metric(higher_is_better=False, label="skipped steps"),
    "train/num_bad_samples": Metric(higher_is_better=False, label="bad samples"),
    "train/samples_per_s": Metric(higher_is_better=True, label="throughput", unit_word="samples/s"),
    "train/samples_per_s_per_device": Metric(higher_is_better=True, label="throughput per device", unit_word="samples/s"),
    "train/mfu": Metric(Unit.share, higher_is_better=True, label="model FLOPs utilisation"),
    "train/data_wait_frac": Metric(Unit.share, higher_is_better=False, label="waiting for data"),
    "train/optimizer_frac": Metric(Unit.share, higher_is_better=False, label="optimizer"),
    "train/collectives_frac": Metric(Unit.share, higher_is_better=False, label="collectives"),
    "train/peak_memory_gb": Metric(higher_is_better=False, label="peak memory", unit_word="GB"),
}
"""By name, see :func:`timix_pl.core.metric.describe`."""
