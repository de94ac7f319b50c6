"""Which device and number format to train a torch classifier in."""

import torch
from lightning.fabric.accelerators import CUDAAccelerator, MPSAccelerator

from stages.common.errors import UserError
from stages.common.settings import Compute
from stages.models.torch_engine.model import TorchClassifier


def resolve(classifier: TorchClassifier, compute: Compute) -> None:
    """Note in `classifier.resolved` the device, precision and threads of its training.

    UserError where `compute` asks for what is not there.
    """
    name = accelerator(compute)
    classifier.training_device = "cuda" if name == "gpu" else name
    classifier.resolved |= {
        "device": torch.cuda.get_device_name() if name == "gpu" else name,
        "precision": precision(compute, name),
        "threads": torch.get_num_threads(),
    }


def accelerator(compute: Compute) -> str:
    """What to train on: 'cpu', 'gpu' or 'mps'. UserError where the one asked for is not there."""
    available = {"gpu": CUDAAccelerator.is_available(), "mps": MPSAccelerator.is_available(), "cpu": True}
    present = [name for name, is_there in available.items() if is_there]
    if compute.accelerator == "auto":
        return present[0]
    if compute.accelerator not in present:
        raise UserError(
            f"compute.accelerator = {compute.accelerator!r} is not on this machine: it has {', '.join(present)}"
        )
    return compute.accelerator


def precision(compute: Compute, accelerator: str) -> str:
    """'float32' or 'bfloat16'; `auto` takes bfloat16 where the hardware multiplies it: emulated, it is slower."""
    if compute.precision != "auto":
        return compute.precision
    native = False
    if accelerator == "gpu":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    if accelerator == "cpu":
        capabilities = torch.cpu.get_capabilities()
        native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return "bfloat16" if native else "float32"
