"""Near duplicates: held-out images of which a training image shows the same shot.

Each image, and its mirror image, is compared with the training images that a coarse descriptor finds most like it. The
similarity is the highest normalised correlation of the two, in a band of fine detail, over all shifts and scales. No
network takes part, so that no model's view decides on which images it is measured.

The threshold was chosen by looking at pairs of test images of CIFAR-100, 64 from each range of similarity. The same
shot were 63 from 0.92 on, 48 in 0.90 to 0.92, 45 in 0.88 to 0.90, 28 in 0.86 to 0.88 and 18 in 0.84 to 0.86: of those
counted, nine in ten. What is missed: rotated and strongly cropped copies. docs/data.md has more.
"""

from functools import reduce
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import fft, ndimage

THRESHOLD = 0.88
CANDIDATES = 6  # training images that an image, and its mirror image, is aligned with
SHIFT = 1 / 8  # of the side, at most, in each direction
SCALES = (0.86, 0.93, 1.0, 1.07, 1.15)  # of height and width, each on its own
BAND = (0.7, 2.5)  # pixels: standard deviations of two Gaussians; what lies between them is compared
COARSE = (2.0, 5.0)  # the same to find candidates
STEP = 4  # pixels: of this coarse image, one in so many is used, in each direction
COARSE_SHIFTS = (-2, 0, 2)  # pixels, in each direction
AXES = 64  # principal components of what is left
NOISE = 10.0  # grey levels squared: added to the variance of each pixel, so that smooth images are less alike
WORTH_SCALING = 0.5  # similarity from which the scales are tried
CHUNK = 500  # images at a time


class Nearest(NamedTuple):
    """For each image the training image most like it: rows (N,) int64, similarity (N,) float32, at most 1."""

    rows: np.ndarray
    similarity: np.ndarray


def are_duplicates(similarity: np.ndarray, source: str) -> np.ndarray:
    """Whether each similarity is that of near duplicates, (N,) bool. The demo has none: each drawing is independent.

    Two of one shape on a plain background look alike all the same; the threshold was validated on photographs alone.
    """
    return (similarity >= THRESHOLD) & (source != "demo")


def nearest(images: np.ndarray, train: np.ndarray) -> Nearest:
    """The most similar of the images `train` for each of `images`, both (N, S, S, 3) uint8."""
    fine = _band(train, *BAND)
    coarse = np.concatenate([_coarse(_band(chunk, *COARSE), 0, 0) for chunk in _chunks(train)])
    axes = np.linalg.eigh(coarse.T @ coarse)[1][:, -AXES:]
    pool = fine, coarse @ axes, axes
    plain, mirrored = ([_nearest(chunk[:, :, ::step], *pool) for chunk in _chunks(images)] for step in (1, -1))
    both = [Nearest(*(np.concatenate(part) for part in zip(*found, strict=True))) for found in (plain, mirrored)]
    better = both[1].similarity > both[0].similarity
    return Nearest(*(np.where(better, mirror, own) for own, mirror in zip(*both, strict=True)))


def _nearest(images: np.ndarray, fine: np.ndarray, coarse: np.ndarray, axes: np.ndarray) -> Nearest:
    queries = _band(images, *BAND)
    candidates = _candidates(_band(images, *COARSE), coarse, axes)
    found = np.stack([_correlation(queries, fine[rows]) for rows in candidates.T], axis=1)
    best = found.argmax(axis=1)[:, None]
    rows, similarity = (np.take_along_axis(table, best, 1)[:, 0] for table in (candidates, found))
    close = similarity > WORTH_SCALING
    for scales in product(SCALES, SCALES):
        others = _scaled(fine[rows[close]], *scales)
        similarity[close] = np.maximum(similarity[close], _correlation(queries[close], others))
    return Nearest(rows, similarity)


def _candidates(band: np.ndarray, coarse: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Rows of the training images most like the images of `band`, shifted or not: (N, CANDIDATES) int64."""
    shifts = product(COARSE_SHIFTS, COARSE_SHIFTS)
    alike = reduce(np.maximum, (_coarse(band, *shift) @ axes @ coarse.T for shift in shifts))
    count = min(CANDIDATES, len(coarse))
    return np.argpartition(alike, -count, axis=1)[:, -count:]


def _chunks(images: np.ndarray) -> list[np.ndarray]:
    return np.array_split(images, -(-len(images) // CHUNK))


def _band(images: np.ndarray, low: float, high: float) -> np.ndarray:
    """The difference of two Gaussian blurs of images (N, S, S, 3), as (N, 3, S, S) float32."""
    planes = np.empty((len(images), 3, *images.shape[1:3]), np.float32)
    for image, own in zip(_chunks(images), _chunks(planes), strict=True):
        some = image.transpose(0, 3, 1, 2).astype(np.float32)
        less, more = (ndimage.gaussian_filter(some, (0, 0, sigma, sigma), mode="nearest") for sigma in (low, high))
        own[:] = less - more
    return planes


def _coarse(band: np.ndarray, down: int, right: int) -> np.ndarray:
    """Planes (N, 3, S, S), shifted by so many pixels, thinned out and as unit vectors: (N, D) float32."""
    thinned = np.roll(band, (down, right), axis=(2, 3))[:, :, STEP // 2 :: STEP, STEP // 2 :: STEP]
    vectors = thinned.reshape(len(band), -1)
    return vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1)


def _scaled(planes: np.ndarray, vertical: float, horizontal: float) -> np.ndarray:
    """Planes (N, 3, S, S) stretched about their middle, by linear interpolation."""
    size = planes.shape[-1]
    rows, columns = (_interpolation(size, scale) for scale in (vertical, horizontal))
    return rows @ planes @ columns.T


def _interpolation(size: int, scale: float) -> np.ndarray:
    """The matrix (size, size) that stretches a column of pixels about its middle; the edge is repeated."""
    middle = (size - 1) / 2
    place = np.clip((np.arange(size) - middle) / scale + middle, 0, size - 1)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(size))).astype(np.float32)


def _correlation(planes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The highest correlation of the middle of `planes` with `others`, both (N, 3, S, S), over all shifts: (N,)."""
    size = planes.shape[-1]
    shift = int(SHIFT * size)
    middle = np.zeros((size, size), np.float32)
    middle[shift : size - shift, shift : size - shift] = 1
    template = planes * middle
    # Correlations for all shifts at once, by the convolution theorem; none of those used wraps around.
    products = fft.irfft2((np.conj(fft.rfft2(template)) * fft.rfft2(others)).sum(axis=1), (size, size))
    energies = fft.irfft2(np.conj(fft.rfft2(middle)) * fft.rfft2((others**2).sum(axis=1)), (size, size))
    shifts = np.r_[: shift + 1, -shift:0]
    products, energies = (table[:, shifts[:, None], shifts] for table in (products, energies))
    own = (template**2).sum(axis=(1, 2, 3))[:, None, None] + NOISE * middle.sum()
    others_energy = np.maximum(energies, 0) + NOISE * middle.sum()
    return (products / np.sqrt(own * others_energy)).max(axis=(1, 2))
