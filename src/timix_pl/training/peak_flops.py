"""Peak FLOP/s of GPUs."""

import torch

_TFLOPS = {  # name: bf16 on tensor cores, fp32
    "b200": (2250.0, 75.0),
    "h200 nvl": (835.0, 60.0),
    "h200": (989.4, 66.9),
    "gh200": (989.4, 66.9),
    "h100 nvl": (835.0, 60.0),
    "h100 pcie": (756.0, 51.2),
    "h100": (989.4, 66.9),
    "a100": (312.0, 19.5),
    "a30": (165.0, 10.3),
    "a40": (149.7, 37.4),
    "a10": (125.0, 31.2),
    "l40s": (362.0, 91.6),
    "l40": (181.0, 90.5),
    "l4": (121.0, 30.3),
    "mi300x": (1307.4, 163.4),
}
"""Peak TFLOP/s from data sheets, without sparsity. Lightning's table is not used, because it includes sparsity for some GPUs, and a dense
model can reach at most half of that."""


def peak_flops(device: torch.device, *, bf16: bool) -> float | None:
    """Peak FLOP/s of a GPU, looked up by its name; None if the device is not a known GPU.

    Args:
        bf16: for matrix products in bf16; False: in fp32, without TF32.
    """
    if device.type != "cuda":
        return None
    words = torch.cuda.get_device_name(device).lower().replace("-", " ").split()
    for name, (in_bf16, in_fp32) in _TFLOPS.items():
        if all(word in words for word in name.split()):
            return (in_bf16 if bf16 else in_fp32) * 1e12
    return None
