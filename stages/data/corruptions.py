"""Eight corruptions of test images, each at three severities.

After CIFAR-100-C (Hendrycks & Dietterich, 2019, https://arxiv.org/abs/1903.12261): noise, blur, weather and digital
corruptions; but kinds and strengths are our own, so accuracies do not compare with those published for it. Lengths are
shares of an image's side, so that images of any size are corrupted alike. All functions take and return images
(N, H, W, 3) uint8; the same seed gives the same pixels.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage

SEVERITIES = (1, 2, 3)


def _pixels(values: np.ndarray) -> np.ndarray:
    """Brightness between 0 and 1 as uint8."""
    return (np.clip(values, 0, 1) * 255).round().astype(np.uint8)


def noise(images: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of this standard deviation, in brightness from 0 to 1, on every channel of every pixel."""
    return _pixels(images / 255 + rng.normal(0, deviation, images.shape))


def blur(images: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur; radius: its standard deviation."""
    side = radius * images.shape[1]
    return ndimage.gaussian_filter(images, (0, side, side, 0), mode="reflect")


def brightness(images: np.ndarray, shift: float, rng: np.random.Generator) -> np.ndarray:
    """As in bright fog or in dusk: brightness from 0 to 1, up for one half of the images, down for the other."""
    up = rng.permutation(len(images)) % 2 * 2 - 1
    return _pixels(images / 255 + shift * up[:, None, None, None])


def contrast(images: np.ndarray, left: float, rng: np.random.Generator) -> np.ndarray:
    """As in haze: each image's distances from its mean shrink to the share `left`."""
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return _pixels((mean + left * (images - mean)) / 255)


def pixelation(images: np.ndarray, left: float, rng: np.random.Generator) -> np.ndarray:
    """Shrunk to the share `left` of the side by averaging, and back up in blocks."""
    height, width = images.shape[1:3]
    small = max(1, round(left * width)), max(1, round(left * height))

    def corrupted(image: Image.Image) -> Image.Image:
        return image.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.NEAREST)

    return _one_by_one(images, corrupted)


def jpeg(images: np.ndarray, quality: float, rng: np.random.Generator) -> np.ndarray:
    """Written as JPEG of this quality (1 to 95, Pillow's scale) and read again."""

    def corrupted(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=round(quality))
        return Image.open(file).convert("RGB")

    return _one_by_one(images, corrupted)


def occlusion(images: np.ndarray, side: float, rng: np.random.Generator) -> np.ndarray:
    """A square in the image's mean colour at a random place; side: that of the square."""
    result = images.copy()
    height, width = images.shape[1:3]
    length = max(1, round(side * min(height, width)))
    tops, lefts = (rng.integers(0, size - length + 1, len(images)) for size in (height, width))
    for image, top, left in zip(result, tops, lefts, strict=True):
        image[top : top + length, left : left + length] = image.mean(axis=(0, 1)).round()
    return result


def rotation(images: np.ndarray, degrees: float, rng: np.random.Generator) -> np.ndarray:
    """Turned by so many degrees to either side; corners that come into view are mirrored from the image."""
    sides = rng.permutation(len(images)) % 2 * 2 - 1
    turned = [
        ndimage.rotate(image / 255.0, degrees * side, reshape=False, order=1, mode="reflect")
        for image, side in zip(images, sides, strict=True)
    ]
    return _pixels(np.array(turned).reshape(images.shape))


def _one_by_one(images: np.ndarray, corrupted: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    return np.array([np.asarray(corrupted(Image.fromarray(image))) for image in images], np.uint8).reshape(images.shape)


Corruption = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
CORRUPTIONS: dict[str, tuple[Corruption, tuple[float, float, float]]] = {
    "noise": (noise, (0.04, 0.08, 0.14)),
    "blur": (blur, (0.018, 0.03, 0.045)),
    "brightness": (brightness, (0.15, 0.3, 0.45)),
    "contrast": (contrast, (0.5, 0.3, 0.15)),
    "pixelation": (pixelation, (0.75, 0.5, 0.34)),
    "jpeg": (jpeg, (60, 25, 10)),
    "occlusion": (occlusion, (0.25, 0.4, 0.55)),
    "rotation": (rotation, (10, 20, 35)),
}


def corrupt(images: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
    """The corrupted images, as new array; name: a key of CORRUPTIONS; severity: 1 to 3."""
    function, strengths = CORRUPTIONS[name]
    rng = np.random.default_rng((seed, list(CORRUPTIONS).index(name), severity))
    return function(np.ascontiguousarray(images), strengths[severity - 1], rng)
