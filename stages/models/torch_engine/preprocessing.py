"""The first layer of every torch classifier: uint8 images to normalised pixels at the network's size."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class Preprocessing(nn.Module):
    """Images (B, H, W, 3) uint8 in, pixels (B, 3, size, size) float32 out, normalised and upsampled bicubically.

    mean, std: per channel, in units where 255 is 1; saved with the weights, so that inference cannot differ.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1))
        self._matrix: Tensor | None = None

    def measure(self, images: np.ndarray) -> None:
        """Take mean and deviation of each channel from images (N, H, W, 3) uint8."""
        levels = np.arange(256) / 255
        for channel in range(3):
            # 256 counts hold all there is to know, exactly and in little memory.
            shares = np.bincount(images[..., channel].ravel(), minlength=256) / images[..., channel].size
            mean = float(shares @ levels)
            self.mean[channel] = mean
            # A set of images in one flat colour still gets finite pixels.
            self.std[channel] = max(float(shares @ (levels - mean) ** 2) ** 0.5, 1 / 255)

    def resize_by_matrices(self, image_size: int) -> None:
        """From now on upsample from `image_size` by two matrix products: the same, to be exported to ONNX.

        Runtimes disagree on the operator Resize (by 0.05 in a logit, seen between two), and some are slow at it.
        """
        identity = torch.eye(image_size)[None, :, :, None]
        size = (self.size, 1)
        columns = F.interpolate(identity, size=size, mode="bicubic", align_corners=False)  # 1, image_size, size, 1
        self._matrix = columns[0, :, :, 0].T  # size, image_size

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2).float() / 255
        pixels = (pixels - self.mean) / self.std
        if self._matrix is not None and self._matrix.shape[0] != self._matrix.shape[1]:
            return self._matrix @ (pixels @ self._matrix.T)
        if pixels.shape[-2:] != (self.size, self.size):
            # Normalising first touches fewer pixels; both steps are linear, their order does not matter.
            pixels = F.interpolate(pixels, size=(self.size, self.size), mode="bicubic", align_corners=False)
        return pixels
