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


def head_and_tower_groups(model: Any, weight_decay: float, *, lr_scale: float) -> list[dict[str, Any]]:
    """Groups of a model that learns a task: those of ``model.head``, then those of ``model.encoder``, which learns more slowly.

    Args:
        lr_scale: the towers' learning rate, as a share of the head's.
    """
    groups = []
    for part, scale in ((model.head, 1.0), (model.encoder, lr_scale)):
        groups += [group | {"lr_scale": scale} for group in parameter_groups(part, weight_decay) if group["params"]]
    return groups
