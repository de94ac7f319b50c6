"""Batches of uint8 pictures, shuffled, cropped and mirrored in memory, the same for both frameworks.

Batch k of epoch e is a pure function of (seed, e, k): a run can be repeated, and resumed in the middle of an epoch.
Working on whole uint8 batches follows airbench (Jordan, 2024, arXiv:2404.00498): no picture is decoded or handled
one by one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .classifier import Examples


class Batch(NamedTuple):
    """What an optimizer step learns from, B pictures.

    images: (B, H, W, 3) uint8.
    labels, others: (B,) int64. Where pictures are mixed, `share` of each belongs to the first, the rest to the second.
    """

    images: np.ndarray
    labels: np.ndarray
    others: np.ndarray
    share: float = 1.0


@dataclass(frozen=True)
class Batches:
    """The training batches of every epoch.

    examples: images (N, H, W, 3) uint8, labels (N,) int64.
    crop_padding: pixels mirrored around a picture before a random crop of its own size; 0: no crop.
    flip: mirror half of the pictures left to right.
    The last batch of an epoch may be smaller.
    """

    examples: Examples
    batch_size: int
    seed: int
    crop_padding: int = 0
    flip: bool = False

    def __len__(self) -> int:
        return -(-len(self.examples.labels) // self.batch_size)

    def examples_between(self, step: int, end: int) -> int:
        """How many examples the optimizer steps from `step` up to `end` (from 0, all in one epoch) see."""
        first = step // len(self) * len(self)
        seen = [min((s - first) * self.batch_size, len(self.examples.labels)) for s in (step, end)]
        return seen[1] - seen[0]

    def batch(self, epoch: int, index: int, order: np.ndarray | None = None) -> Batch:
        """Batch `index` of `epoch`, both from 0."""
        order = self.order(epoch) if order is None else order
        rows = order[index * self.batch_size : (index + 1) * self.batch_size]
        rng = np.random.default_rng((self.seed, epoch, 1 + index))
        images = augment(self.examples.images[rows], rng, self.crop_padding, self.flip)
        labels = np.asarray(self.examples.labels[rows])
        return Batch(images, labels, labels)

    def order(self, epoch: int) -> np.ndarray:
        """The order in which an epoch visits the examples: a permutation (N,) int64."""
        # Word 0 belongs to the order, 1 and up to the batches.
        return np.random.default_rng((self.seed, epoch, 0)).permutation(len(self.examples.labels))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from batch `start` on."""
        order = self.order(epoch)
        return (self.batch(epoch, index, order) for index in range(start, len(self)))


def augment(images: np.ndarray, rng: np.random.Generator, crop_padding: int, flip: bool) -> np.ndarray:
    """Random crop and mirror of each picture: (B, H, W, 3) uint8 to the same shape; the input is left as it is."""
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
