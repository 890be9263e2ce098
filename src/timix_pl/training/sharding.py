"""FSDP2: each rank stores a shard of the weights, gradients and optimizer state, and gathers a layer only while it computes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from timix_pl.core.distributed import rank
from timix_pl.core.errors import RunError
from timix_pl.models.fine_tuned import AnyModel
from timix_pl.training.checkpoint_io import named_tensors, plain_values, read_checkpoint, save_folder, stored_tensors


class ShardedStrategy(ModelParallelStrategy):
    """Shards the model over all ranks. Checkpoints are folders that all ranks write, or files with the whole state.

    A run can be resumed from either kind, sharded or not, written by any number of ranks.

    Args:
        num_ranks: number of processes over all nodes.
        sharded_checkpoints: write folders; False: files.
        param_dtype: type in which the towers compute, with fp32 weights in the optimizer and fp32 reductions; None: the weights' type.
        offload: keep weights and optimizer state in CPU memory.
    """

    def __init__(self, num_ranks: int, *, sharded_checkpoints: bool, param_dtype: torch.dtype | None = None, offload: bool = False):
        backend = "cpu:gloo,cuda:nccl" if offload and torch.cuda.is_available() else None
        super().__init__(num_ranks, 1, save_distributed_checkpoint=sharded_checkpoints, process_group_backend=backend)
        self.sharded_checkpoints, self.param_dtype, self.offload = sharded_checkpoints, param_dtype, offload

    def shard(self, model: AnyModel) -> None:
        """Shard the model in place: each block, then the rest of each tower. The logit scale stays in fp32."""
        mesh = self.device_mesh["data_parallel"]
        offload = CPUOffloadPolicy(pin_memory=torch.cuda.is_available()) if self.offload else OffloadPolicy()
        policy = MixedPrecisionPolicy(param_dtype=self.param_dtype, reduce_dtype=torch.float32 if self.param_dtype else None)
        for part in [*model.blocks(), *model.parts().values()]:
            fully_shard(part, mesh=mesh, mp_policy=policy, offload_policy=offload)
        fully_shard(model, mesh=mesh, offload_policy=offload)

    def model_to_device(self) -> None:
        """Move everything to the device that need not stay in CPU memory."""
        if not self.offload:
            super().model_to_device()
            return
        assert self.model is not None
        for module in self.model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                module.register_buffer(name, buffer.to(self.root_device), persistent=name not in module._non_persistent_buffers_set)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """This rank's shards, or the whole weights on rank 0."""
        assert self.lightning_module is not None
        return self._for_checkpoint(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """This rank's shards of the optimizer state, or the whole state on rank 0."""
        return self._for_checkpoint(getattr(optimizer, "optimizer", optimizer).state_dict())

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Write a folder on all ranks together, or a file on rank 0."""
        path = Path(self.broadcast(str(filepath)))
        if self.sharded_checkpoints:
            save_folder(checkpoint, path)
        elif self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, path)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Load this rank's shards of the weights and the optimizer state.

        Returns:
            The rest of the checkpoint.
        Raises:
            RunError: the checkpoint belongs to another model.
        """
        assert self.lightning_module is not None
        path, weights = Path(checkpoint_path), self.lightning_module.state_dict()
        states = [optimizer.state_dict()["state"] for optimizer in self.optimizers]
        if path.is_dir():
            checkpoint = plain_values(path)
            stored = stored_tensors(path)
            for saved, state in zip(checkpoint["optimizer_states"], states, strict=True):
                saved["state"] = state
            wanted = named_tensors(checkpoint | {"state_dict": weights})
            _check_same(path, {name: entry.size for name, entry in stored.items()}, wanted)
            dcp.load(wanted, checkpoint_id=path)
        else:
            checkpoint = read_checkpoint(path)
            whole = checkpoint.pop("state_dict")
            _check_same(path, {name: value.shape for name, value in whole.items()}, weights)
            for name, weight in weights.items():
                weight.copy_(_share(whole[name], weight))
            for saved, state in zip(checkpoint["optimizer_states"], states, strict=True):
                for number, values in saved["state"].items():
                    values |= {key: _share(value, state[number][key]) for key, value in values.items()}
        for optimizer, saved in zip(self.optimizers, checkpoint.pop("optimizer_states"), strict=True):
            optimizer.load_state_dict(saved)
        return checkpoint

    def _for_checkpoint(self, state: dict[str, Any]) -> dict[str, Any]:
        if self.sharded_checkpoints:
            return state
        whole = tree_map_only(DTensor, lambda shard: shard.full_tensor().cpu(), state)
        return whole if rank() == 0 else {}


def _check_same(path: Path, stored: Mapping[str, torch.Size], wanted: Mapping[str, Tensor]) -> None:
    needed = {name: tensor.shape for name, tensor in wanted.items()}
    if differing := sorted(name for name in stored.keys() | needed.keys() if stored.get(name) != needed.get(name)):
        listed = ", ".join(f"{name} is {tuple(stored.get(name, ()))} there, {tuple(needed.get(name, ()))} here" for name in differing[:3])
        raise RunError(
            f"resume={path}: {len(differing)} of its tensors do not fit this model: {listed}; resume with the model that wrote it"
        )


def _share(whole: Tensor, sharded: Tensor) -> Tensor:
    """This rank's shard of a tensor that all ranks have, sharded like ``sharded``; the whole tensor if that is not sharded."""
    if not isinstance(sharded, DTensor):
        return whole
    return distribute_tensor(whole, sharded.device_mesh, sharded.placements, src_data_rank=None)


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Inside this context, every rank has all weights of a sharded model, so it can run the model without the other ranks."""
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part is not model, recurse=False)
            part.reshard()
