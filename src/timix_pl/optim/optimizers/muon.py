"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/), in timm's implementation."""

from collections.abc import Mapping
from typing import Any

import timm.optim
import torch
from torch import Tensor

from timix_pl.core.choices import OPTIMIZERS
from timix_pl.optim.optimizer import OptimizerChoice
from timix_pl.optim.optimizers.adamw import AdamW


@OPTIMIZERS.register("muon")
class Muon(OptimizerChoice):
    """Muon for the weight matrices of hidden layers, AdamW for all other parameters, in one optimizer.

    Muon orthogonalises the momentum of a matrix before it adds it. Its author recommends AdamW for the first and the last layer,
    embeddings, gains and biases. Here, the hidden layers are the blocks of the towers: Muon updates their matrices. AdamW updates patch,
    token and position embeddings, projections, heads, the temperature and all vectors.

    Muon's updates are multiplied by 0.2 times the root of the matrix's longer side, which gives them the size of AdamW's (Liu et al. 2025,
    arXiv 2502.16982). So both use the same learning rate and weight decay.

    Args:
        momentum: decay of a matrix's mean gradient.
        beta1, beta2, eps: of AdamW.
    """

    for_hidden_matrices = True

    def __init__(self, *, momentum: float = 0.95, beta1: float = 0.9, beta2: float = 0.98, eps: float = 1e-6):
        self.momentum, self.betas, self.eps = momentum, (beta1, beta2), eps

    def build(self, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
        """See :class:`OptimizerChoice`."""
        of_adamw = {"use_muon": False, "eps": self.eps}
        marked = [group | ({"use_muon": True} if "hidden" in group else of_adamw) for group in groups]
        optimizer = timm.optim.Muon(marked, lr=lr, momentum=self.momentum, betas=self.betas, adjust_lr_fn="match_rms_adamw")
        optimizer.register_state_dict_post_hook(_only_tensors)
        return optimizer

    def state(self, parameter: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """See :class:`OptimizerChoice`."""
        if "hidden" in group:
            return {"momentum_buffer": torch.zeros_like(parameter)}
        return AdamW().state(parameter, group) | {"step": torch.zeros(())}  # on the CPU, even if the parameter is on a GPU


def _only_tensors(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """Remove timm's flag ``use_muon`` from each parameter's state; its group has it too."""
    state = {number: {key: value for key, value in of.items() if key != "use_muon"} for number, of in saved["state"].items()}
    return saved | {"state": state}
