"""Which parameters decay."""

from typing import Any

from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: matrices decay; gains, biases, class token, position embeddings and logit scale do not."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    plain = [p for name, p in named if p.ndim < 2 or name.endswith(("positional_embedding", "class_embedding", "pos_embed", "cls_token"))]
    exempt = {id(p) for p in plain}
    return [
        {"params": [p for _, p in named if id(p) not in exempt], "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
