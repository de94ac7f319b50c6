"""Which number format to train in, and on what."""

from typing import Literal

import torch
from lightning.fabric.accelerators import CUDAAccelerator, MPSAccelerator

from stages.common.errors import UserError
from stages.common.settings import Compute

LIGHTNING_PRECISION: dict[str, Literal["32-true", "bf16-mixed"]] = {"float32": "32-true", "bfloat16": "bf16-mixed"}


def resolve_device(compute: Compute) -> str:
    """The accelerator to use: 'cpu', 'gpu' or 'mps'. UserError where the one asked for is not there."""
    available = {"gpu": CUDAAccelerator.is_available(), "mps": MPSAccelerator.is_available(), "cpu": True}
    if compute.accelerator == "auto":
        return next(name for name, there in available.items() if there)
    if not available[compute.accelerator]:
        there = ", ".join(name for name, is_there in available.items() if is_there)
        raise UserError(f"compute.accelerator = {compute.accelerator!r} is not on this machine: it has {there}")
    return compute.accelerator


def multiplies_bfloat16(device: str) -> bool:
    """Whether the hardware multiplies bfloat16 natively; emulated, it is slower than float32."""
    if device == "gpu":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def resolve_precision(compute: Compute, device: str) -> str:
    """'float32' or 'bfloat16'; `auto` takes bfloat16 where the hardware multiplies it."""
    if compute.precision != "auto":
        return compute.precision
    return "bfloat16" if multiplies_bfloat16(device) else "float32"
