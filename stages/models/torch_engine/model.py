"""What the torch classifiers share: the contract's methods around a preprocessing layer and a network."""

from abc import abstractmethod
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from onnx import ModelProto
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stages.common.errors import UserError
from stages.common.settings import ClassifierSettings, Compute
from stages.models.base import OPSET, Classifier
from stages.models.torch_engine.preprocessing import Preprocessing

WEIGHTS = "weights.safetensors"
INFERENCE_BATCH = 16  # images at a time: what a CPU works on should fit into its caches (docs/tuning.md)


class TorchClassifier(Classifier):
    """A classifier whose network is a torch module. A subclass builds the network and names its optimizer."""

    engine = "torch_engine"
    schedule: Literal["linear", "cosine"] = "cosine"
    """How the learning rate falls to zero after the warm-up."""
    training_device = "cpu"
    """Where it is trained, in torch's words; all else is computed on the CPU."""

    def __init__(self, settings: ClassifierSettings, num_classes: int, image_size: int, seed: int = 0) -> None:
        super().__init__(settings, num_classes, image_size, seed)
        with torch.random.fork_rng(devices=[]):  # the caller's own random numbers stay as they were
            torch.manual_seed(seed)
            self.preprocessing, self.body = self.build()
        self.network = torch.nn.Sequential(self.preprocessing, self.body)

    @classmethod
    def configure(cls, compute: Compute) -> None:
        torch.set_num_threads(compute.cpu_threads)

    @abstractmethod
    def build(self) -> tuple[Preprocessing, torch.nn.Module]:
        """The preprocessing and the network behind it, with initial weights; UserError where none can be had."""

    @abstractmethod
    def optimizer(self, precision: str) -> torch.optim.Optimizer:
        """An optimizer over the trainable parameters, each group with its highest learning rate.

        precision: 'float32' or 'bfloat16', the one of the training.
        """

    def before_training(self, images: np.ndarray) -> None:
        """Hook: what is taken from the training images (N, S, S, 3) uint8 before the first step."""

    def before_step(self, progress: float) -> None:
        """Hook: what changes during training; progress: share of all steps that are done, 1 before each validation."""

    @torch.inference_mode()
    def logits(self, images: np.ndarray) -> np.ndarray:
        self.network.eval()
        logits = np.empty((len(images), self.num_classes), np.float32)
        for start in range(0, len(images), INFERENCE_BATCH):
            batch = torch.from_numpy(np.array(images[start : start + INFERENCE_BATCH]))
            logits[start : start + INFERENCE_BATCH] = self.network(batch).numpy()
        return logits

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.body.parameters())

    @torch.inference_mode()
    def multiply_adds(self) -> int:
        self.network.eval()
        # The counter does not know the fused attention of the CPU; the plain one is the same work.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            self.network(torch.zeros((1, self.image_size, self.image_size, 3), dtype=torch.uint8))
        return counter.get_total_flops() // 2

    def onnx_graph(self) -> ModelProto:
        self.network.eval()
        images = torch.zeros((2, self.image_size, self.image_size, 3), dtype=torch.uint8)
        self.preprocessing.resize_by_matrices(self.image_size)
        program = torch.onnx.export(
            self.network,
            (images,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("N")},),
            opset_version=OPSET,
            verbose=False,
        )
        assert program is not None
        return program.model_proto

    def save_weights(self, folder: Path) -> Path:
        file = folder / WEIGHTS
        state = {name: tensor.detach().contiguous() for name, tensor in self.network.state_dict().items()}
        save_file(state, file)
        return file

    def load_weights(self, file: Path) -> None:
        try:
            self.network.load_state_dict(load_file(file))
        except (SafetensorError, OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{file} is damaged or does not fit {self.settings.classifier}: {reason}") from error
