"""``task=pretrain``: both towers from image-text pairs."""

from timix_pl.core.choices import TASKS


@TASKS.register("pretrain")
class Pretraining:
    """Contrastive pre-training."""
