"""The scratch ViT behind the contract: its normalisation and its optimizer."""

import numpy as np
import torch

from stages.common.errors import UserError
from stages.models.torch_engine.model import TorchClassifier
from stages.models.torch_engine.muon import Muon
from stages.models.torch_engine.preprocessing import Preprocessing
from stages.models.vit_scratch.settings import Settings
from stages.models.vit_scratch.vit import VisionTransformer

# The settings that VisionTransformer takes.
NETWORK = {"patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "dropout", "drop_path", "pool"}
WHITENING_PATCHES = 2**17  # from which the patches' directions are taken


class VitScratch(TorchClassifier):
    """A Vision Transformer trained from random initial weights.

    Matrices of the encoder blocks are trained by Muon, the rest by AdamW.
    """

    settings: Settings
    body: VisionTransformer
    schedule = "linear"

    def build(self) -> tuple[Preprocessing, torch.nn.Module]:
        s = self.settings
        if self.image_size % s.patch_size:
            raise UserError(f"vit_scratch: patch_size = {s.patch_size} does not divide image size {self.image_size}")
        sizes = s.model_dump(include=NETWORK)
        network = VisionTransformer(self.image_size, self.num_classes, **sizes)
        self.resolved["weights"] = "random"
        # Mean and deviation of the training images, once they are known.
        return Preprocessing(self.image_size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)), network

    def before_training(self, images: np.ndarray) -> None:
        self.preprocessing.measure(np.asarray(images))
        if self.settings.whitening is None:
            return
        count = max(1, WHITENING_PATCHES // self.body.grid_size**2)
        chosen = np.sort(np.random.default_rng(self.seed).permutation(len(images))[:count])
        pixels = self.preprocessing(torch.from_numpy(images[chosen]))
        self.body.patch_embedding.whiten(pixels, self.settings.whitening)

    def optimizer(self, precision: str) -> torch.optim.Optimizer:
        s = self.settings
        muon, matrices, others = [], [], []
        for name, parameter in self.body.named_parameters():
            if name.startswith("blocks.") and parameter.ndim == 2:
                muon.append(parameter)
            elif name in ("patch_embedding.projection.weight", "head.weight"):
                matrices.append(parameter)
            else:  # biases, norms, position embedding, class token
                others.append(parameter)
        return Muon(
            [
                {"params": muon, "lr": s.muon_lr, "weight_decay": s.weight_decay, "muon": True},
                {"params": matrices, "lr": s.adamw_lr, "weight_decay": s.weight_decay},
                {"params": others, "lr": s.adamw_lr, "weight_decay": 0.0},
            ],
            orthogonalize_in=torch.bfloat16 if precision == "bfloat16" else torch.float32,
        )
