"""timm's pretrained Vision Transformers behind the contract."""

import difflib
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors import safe_open
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay

from stages.common.errors import UserError
from stages.common.files import file_sha256
from stages.models.base import FinetunedClassifier
from stages.models.torch_engine.model import TorchClassifier
from stages.models.torch_engine.preprocessing import Preprocessing
from stages.models.vit_transfer.settings import Settings

HUB_FILE = "model.safetensors"
HUB_TIMEOUT = 10.0  # seconds to find out that the hub cannot be reached
PATCH_DROPOUT_ENDS = 0.9  # share of all steps; the rest sees whole images, as inference does


class VitTransfer(FinetunedClassifier, TorchClassifier):
    """A Vision Transformer with ImageNet weights, a new head, fine-tuned as a whole or by its head only.

    Small images are upsampled to `image_size` inside the network; the position embeddings are resampled to the
    grid that results. Mean and deviation come from the model's own pretrained configuration.

    With `small_size` the first `small_fraction` of all steps sees smaller images, which costs less (Touvron et al.,
    2019, https://arxiv.org/abs/1906.06423); the position embeddings are resampled at each step and stay as they are.
    `patch_dropout` leaves out patches, other ones in each image at each step, for the same reason (Liu et al., 2022,
    https://arxiv.org/abs/2208.07220); the last tenth of the steps sees all.
    """

    settings: Settings
    body: VisionTransformer

    def build(self) -> tuple[Preprocessing, torch.nn.Module]:
        s = self.settings
        if not timm.is_model(s.backbone):
            close = difflib.get_close_matches(s.backbone, timm.list_models(), n=3)
            raise _mistake(f"backbone = {s.backbone!r} is no model of timm; did you mean {' or '.join(close)}?")
        options: dict[str, Any] = {"num_classes": self.num_classes, "img_size": s.image_size}
        if s.patch_dropout:
            options["patch_drop_rate"] = s.patch_dropout
        if s.small_size:
            options["dynamic_img_size"] = True
        self.resolved["weights"] = s.weights if s.weights in ("pretrained", "random") else "file"
        if s.weights != "random":
            file = _hub_file(s.backbone) if s.weights == "pretrained" else _own_file(s.weights)
            self.resolved["weights_sha256"] = file_sha256(file)
            options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file)}}
        try:
            network = timm.create_model(s.backbone, **options)
        except Exception as error:
            # timm raises whatever it meets: an assertion for a size that does not fit the patches, a RuntimeError
            # for tensors of another shape, SafetensorError for a damaged file.
            reason = " ".join(str(error).split())[:200]
            raise _mistake(
                f"cannot build {s.backbone} with image_size = {s.image_size} and weights = {s.weights!r}: {reason}"
            ) from error
        if not isinstance(network, VisionTransformer) or not isinstance(network.get_classifier(), torch.nn.Linear):
            raise _mistake(
                f"backbone = {s.backbone!r} ({type(network).__name__}) is no Vision Transformer with one head: "
                "choose e.g. vit_tiny_patch16_224 or deit_tiny_patch16_224"
            )
        if self.resolved["weights"] == "file":
            _check_names(network, file)
        patch = network.patch_embed.patch_size[0]
        for name, size in (("image_size", s.image_size), ("small_size", s.small_size or 0)):
            if size % patch:
                raise _mistake(f"{name} = {size} is no multiple of the patch size {patch} of {s.backbone}")
        if s.small_size and network.pos_embed is not None:
            # The way back through resampling is not deterministic on GPUs.
            network.pos_embed.requires_grad_(False)
        config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
        return Preprocessing(s.image_size, mean=config["mean"], std=config["std"]), network

    def before_step(self, progress: float) -> None:
        s = self.settings
        self.preprocessing.size = s.small_size if s.small_size and progress < s.small_fraction else s.image_size
        if s.patch_dropout:
            self.body.patch_drop.prob = s.patch_dropout if progress < PATCH_DROPOUT_ENDS else 0.0
        # The way back through torch's fused attention takes a CPU four times as long as the plain one in bfloat16.
        is_slow = self.training_device == "cpu" and self.resolved["precision"] == "bfloat16"
        for block in self.body.blocks:
            block.attn.fused_attn = progress == 1 or not is_slow  # type: ignore[union-attr]

    def backbone_facts(self) -> dict[str, Any]:
        s = self.settings
        chosen = {"backbone": s.backbone, "image_size": s.image_size, "precision": self.resolved["precision"]}
        # Random weights follow from the seed.
        return chosen | {"weights": self.resolved.get("weights_sha256", f"random, seed {self.seed}")}

    @torch.inference_mode()
    def features(self, images: np.ndarray) -> np.ndarray:
        self.network.to(self.training_device).eval()
        batch = torch.from_numpy(np.array(images)).to(self.training_device)
        with torch.autocast(self.training_device, torch.bfloat16, enabled=self.resolved["precision"] == "bfloat16"):
            tokens = self.body.forward_features(self.preprocessing(batch))
            return self.body.forward_head(tokens, pre_logits=True).float().cpu().numpy()

    @torch.no_grad()
    def set_head(self, weight: np.ndarray, bias: np.ndarray) -> None:
        self.network.cpu()
        head: Any = self.body.get_classifier()
        head.weight.copy_(torch.from_numpy(weight.T))
        head.bias.copy_(torch.from_numpy(bias))

    def optimizer(self, precision: str) -> torch.optim.Optimizer:
        """AdamW; the new head has a rate of its own, the backbone's falls by `layer_decay` from each block to the one
        below it (Clark et al., 2020, https://arxiv.org/abs/2003.10555): the first blocks are the most general.
        """
        s = self.settings
        head = {id(parameter) for parameter in self.body.get_classifier().parameters()}
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        # Weights decay in matrices only: pulling biases, norms and embeddings to zero serves nothing.
        for layer in param_groups_layer_decay(
            self.body,
            weight_decay=s.weight_decay,
            layer_decay=s.layer_decay,
            no_weight_decay_list=self.body.no_weight_decay(),
        ):
            for parameter in layer["params"]:
                rate = s.head_lr if id(parameter) in head else s.lr * layer["lr_scale"]
                groups.setdefault((rate, layer["weight_decay"]), []).append(parameter)
        return torch.optim.AdamW(
            [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]
        )


def _mistake(text: str) -> UserError:
    return UserError(f"vit_transfer: {text}")


def _own_file(weights: str) -> Path:
    """The file that `weights` names; UserError where it cannot be read or may hold code."""
    file = Path(weights).expanduser()
    if file.suffix != ".safetensors" or not file.is_file():
        raise _mistake(
            f"weights = {weights!r} is no .safetensors file (others can hold code, which runs when they are read): "
            "give one, `pretrained` or `random`"
        )
    return file


def _check_names(network: VisionTransformer, file: Path) -> None:
    """UserError where the file lacks tensors of the network: timm leaves those random without a word."""
    with safe_open(file, framework="pt") as stored:
        there = set(stored.keys())
    head = {f"{network.pretrained_cfg['classifier']}.{name}" for name in ("weight", "bias")}  # type: ignore[index]
    missing = sorted(set(network.state_dict()) - head - there)
    if missing:
        raise _mistake(
            f"weights = {str(file)!r} lacks {len(missing)} of the network's tensors, the first is {missing[0]!r}: "
            "give a file with timm's names for this backbone"
        )


def _hub_file(backbone: str) -> Path:
    """The pretrained weights as a local file, downloaded once into the hub's cache; one clear error without network."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    config = timm.get_pretrained_cfg(backbone)
    if config is None or not config.hf_hub_id:
        raise _mistake(
            f"timm has no pretrained weights for {backbone}: choose another backbone, give the path of a .safetensors "
            "file as weights, or weights: random"
        )
    cached = try_to_load_from_cache(config.hf_hub_id, HUB_FILE)
    if isinstance(cached, str):
        return Path(cached)
    url = hf_hub_url(config.hf_hub_id, HUB_FILE)
    try:
        # One short request first: the download itself would retry for minutes without a network.
        get_hf_file_metadata(url, timeout=HUB_TIMEOUT)
        return Path(hf_hub_download(config.hf_hub_id, HUB_FILE))
    except Exception as error:
        # The hub's client lets through what its HTTP library raises, and that library changes with its version.
        reason = " ".join(str(error).split())[:150]
        raise _mistake(
            f"cannot download the pretrained weights of {backbone} from {url} ({reason}): give the path of a "
            ".safetensors file as models.vit_transfer.weights, or set it to random"
        ) from error
