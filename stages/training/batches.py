"""Batches of uint8 images, shuffled, cropped and mirrored in memory, the same for both frameworks.

Batch k of epoch e is a pure function of (seed, e, k): a run can be repeated, and resumed in the middle of an epoch.
Working on whole uint8 batches follows airbench (Jordan, 2024, arXiv:2404.00498): no image is decoded or handled
one by one.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from stages.common.settings import ClassifierSettings


class LabeledImages(NamedTuple):
    """Images (N, H, W, 3) uint8 and their labels (N,) int64. Memory-mapped arrays are fine."""

    images: np.ndarray
    labels: np.ndarray


class Batch(NamedTuple):
    """What an optimizer step learns from, B images.

    images: (B, H, W, 3) uint8.
    labels, others: (B,) int64. Where images are mixed, `share` of each belongs to the first, the rest to the second.
    """

    images: np.ndarray
    labels: np.ndarray
    others: np.ndarray
    share: float = 1.0


@dataclass(frozen=True)
class Batches:
    """The training batches of every epoch.

    crop_padding: pixels mirrored around an image before a random crop of its own size; 0: no crop.
    flip: mirror half of the images left to right.
    rand_augment: magnitude, from 0 to 10, of two random distortions of each image; 0: none.
    mixup, cutmix: alpha of the Beta distribution of shares, 0: none; where both are set, each mixes half the batches.
    The last batch of an epoch may be smaller.
    """

    examples: LabeledImages
    batch_size: int
    seed: int
    crop_padding: int = 0
    flip: bool = False
    rand_augment: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    @classmethod
    def of(cls, examples: LabeledImages, settings: ClassifierSettings, seed: int) -> Self:
        """The batches that a classifier's settings ask for."""
        optional = {name: getattr(settings, name, 0.0) for name in ("rand_augment", "mixup", "cutmix")}
        return cls(examples, settings.batch_size, seed, settings.crop_padding, settings.flip, **optional)

    def __len__(self) -> int:
        return -(-len(self.examples.labels) // self.batch_size)

    def images_until(self, step: int) -> int:
        """How many images the first `step` optimizer steps see, those of every epoch counted anew."""
        epoch, rest = divmod(step, len(self))
        return epoch * len(self.examples.labels) + rest * self.batch_size

    def steps_to(self, images: int) -> int:
        """How many optimizer steps it takes to see so many images."""
        epoch, rest = divmod(images, len(self.examples.labels))
        return epoch * len(self) - (-rest // self.batch_size)

    def batch(self, epoch: int, index: int, order: np.ndarray | None = None) -> Batch:
        """Batch `index` of `epoch`, both from 0."""
        order = self.order(epoch) if order is None else order
        rows = order[index * self.batch_size : (index + 1) * self.batch_size]
        rng = np.random.default_rng((self.seed, epoch, 1 + index))
        images = augment(self.examples.images[rows], rng, self.crop_padding, self.flip)
        if self.rand_augment:
            images = rand_augment(images, rng, self.rand_augment)
        return mix(images, np.asarray(self.examples.labels[rows]), rng, self.mixup, self.cutmix)

    def order(self, epoch: int) -> np.ndarray:
        """The order in which an epoch visits the examples: a permutation (N,) int64."""
        # Word 0 belongs to the order, 1 and up to the batches.
        return np.random.default_rng((self.seed, epoch, 0)).permutation(len(self.examples.labels))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from batch `start` on."""
        order = self.order(epoch)
        return (self.batch(epoch, index, order) for index in range(start, len(self)))


def augment(images: np.ndarray, rng: np.random.Generator, crop_padding: int, flip: bool) -> np.ndarray:
    """Random crop and mirror of each image: (B, H, W, 3) uint8 to the same shape; the input is left as it is."""
    count, height, width = images.shape[:3]
    if crop_padding:
        pad = ((0, 0), (crop_padding, crop_padding), (crop_padding, crop_padding), (0, 0))
        padded = np.pad(images, pad, mode="reflect")
        top, left = rng.integers(0, 2 * crop_padding + 1, size=(2, count))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
        images = np.moveaxis(windows[np.arange(count), top, left], 1, 3)
    if flip:
        mirrored = rng.integers(0, 2, (count, 1, 1, 1), dtype=bool)
        images = np.where(mirrored, np.flip(images, axis=2), images)
    return images


def rand_augment(images: np.ndarray, rng: np.random.Generator, magnitude: float) -> np.ndarray:
    """Two random distortions of each image (Cubuk et al., 2020, arXiv:1909.13719), by timm.

    images: (B, H, W, 3) uint8, as is what comes back. About 0.1 ms an image of 32 px.
    """
    from PIL import Image
    from timm.data.auto_augment import rand_augment_transform

    distort = rand_augment_transform(f"rand-m{magnitude:.0f}-n2-mstd0.5-inc1", {"translate_pct": 0.3})
    # timm draws from the global generators of Python and NumPy.
    before = random.getstate(), np.random.get_state()
    random.seed(int(rng.integers(2**32)))
    np.random.seed(int(rng.integers(2**32)))
    try:
        return np.stack([np.asarray(distort(Image.fromarray(image))) for image in images])
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def mix(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator, mixup: float, cutmix: float) -> Batch:
    """Mix the first image with the last, the second with the last but one ...: Zhang et al. (2018, arXiv:1710.09412)
    blend whole images, Yun et al. (2019, arXiv:1905.04899) paste a rectangle.

    images: (B, H, W, 3) uint8; labels: (B,) int64; mixup, cutmix: alpha of the Beta distribution, 0: not that way.
    """
    if not mixup and not cutmix:
        return Batch(images, labels, labels)
    blend = bool(mixup) and (not cutmix or rng.random() < 0.5)
    share = float(rng.beta(mixup, mixup) if blend else rng.beta(cutmix, cutmix))
    others = images[::-1]
    if blend:
        images = np.rint(share * images + (1 - share) * others.astype(np.float32)).astype(np.uint8)
    else:
        height, width = images.shape[1:3]
        middle = rng.integers(0, (height, width))
        half = np.rint(np.sqrt(1 - share) * np.array([height, width]) / 2).astype(int)
        (top, left), (bottom, right) = np.maximum(middle - half, 0), np.minimum(middle + half, (height, width))
        images = images.copy()
        images[:, top:bottom, left:right] = others[:, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)  # what the edges left of the rectangle
    return Batch(images, labels, labels[::-1], share)
