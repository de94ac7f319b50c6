"""Pictures of any size brought to the size a classifier was trained on."""

import numpy as np
from PIL import Image


def shrink(images: np.ndarray, size: int) -> np.ndarray:
    """Bring pictures to `size` x `size` by averaging areas (PIL's box filter; smaller ones: nearest pixel).

    images: (N, H, W, 3) uint8. Returns (N, size, size, 3) uint8, the very same array where nothing is to do.
    A picture that is not square is squeezed; crop it first where that matters.
    """
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(f"pictures must be (N, H, W, 3) uint8, not {images.shape} {images.dtype}")
    if images.shape[1] == 0 or images.shape[2] == 0:
        raise ValueError(f"pictures have no pixels: {images.shape}")
    if images.shape[1:3] == (size, size):
        return images
    resized = [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BOX)) for image in images]
    return np.stack(resized) if resized else np.empty((0, size, size, 3), np.uint8)
