"""What GPUs can compute at best."""

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
"""TFLOP/s of data sheets, without sparsity. Lightning's own table counts it for some, so that a dense model could reach half at most."""


def peak_flops(device: torch.device, *, bf16: bool) -> float | None:
    """FLOP/s of a GPU at best, by its name; None for one that is not known, or no GPU.

    Args:
        bf16: matrix products in bf16; else in fp32, without TF32.
    """
    if device.type != "cuda":
        return None
    words = torch.cuda.get_device_name(device).lower().replace("-", " ").split()
    for name, (in_bf16, in_fp32) in _TFLOPS.items():
        if all(word in words for word in name.split()):
            return (in_bf16 if bf16 else in_fp32) * 1e12
    return None
