"""Near duplicates: held-out images of which a training image shows the same shot."""

from typing import NamedTuple

import numpy as np
from scipy import fft, ndimage

THRESHOLD = 0.86
CANDIDATES = 6  # training images that an image, and its mirror image, is aligned with
SHIFT = 4  # pixels, at most, in each direction
SCALES = (0.86, 0.93, 1.0, 1.07, 1.15)  # of height and width, each on its own
BAND = (0.7, 2.5)  # pixels: standard deviations of two Gaussians; what lies between them is compared
COARSE = (2.0, 8.0), 4  # the same to find candidates, of which each fourth pixel is used
WORTH_SCALING = 0.5  # similarity from which the scales are tried
CHUNK = 500  # images at a time


class Nearest(NamedTuple):
    """For each image the training image most like it: rows (N,) int64, similarity (N,) float32, at most 1."""

    rows: np.ndarray
    similarity: np.ndarray


def nearest(images: np.ndarray, train: np.ndarray) -> Nearest:
    """The most similar of the images `train` for each of `images`, both (N, S, S, 3) uint8."""
    fine, coarse = _band(train, *BAND), _descriptors(train)
    plain, mirrored = (
        [_nearest(chunk[:, :, ::step], fine, coarse) for chunk in np.array_split(images, -(-len(images) // CHUNK))]
        for step in (1, -1)
    )
    both = [Nearest(*(np.concatenate(part) for part in zip(*found, strict=True))) for found in (plain, mirrored)]
    better = both[1].similarity > both[0].similarity
    return Nearest(*(np.where(better, mirror, own) for own, mirror in zip(*both, strict=True)))


def _nearest(images: np.ndarray, fine: np.ndarray, coarse: np.ndarray) -> Nearest:
    queries, alike = _band(images, *BAND), _descriptors(images) @ coarse.T
    count = min(CANDIDATES, len(fine))
    candidates = np.argpartition(alike, -count, axis=1)[:, -count:]
    found = np.stack([_correlation(queries, fine[rows]) for rows in candidates.T], axis=1)
    best = found.argmax(axis=1)[:, None]
    rows, similarity = (np.take_along_axis(table, best, 1)[:, 0] for table in (candidates, found))
    close = similarity > WORTH_SCALING
    for vertical in SCALES:
        for horizontal in SCALES:
            others = _scaled(fine[rows[close]], vertical, horizontal)
            similarity[close] = np.maximum(similarity[close], _correlation(queries[close], others))
    return Nearest(rows, similarity)


def _band(images: np.ndarray, low: float, high: float) -> np.ndarray:
    """The difference of two Gaussian blurs of images (N, S, S, 3), as (N, 3, S, S) float32."""
    planes = np.empty((len(images), 3, *images.shape[1:3]), np.float32)
    for start in range(0, len(images), CHUNK):
        some = images[start : start + CHUNK].transpose(0, 3, 1, 2).astype(np.float32)
        blurred = (ndimage.gaussian_filter(some, (0, 0, sigma, sigma), mode="nearest") for sigma in (low, high))
        planes[start : start + CHUNK] = np.subtract(*blurred)
    return planes


def _descriptors(images: np.ndarray) -> np.ndarray:
    """Coarse images as unit vectors (N, D) float32."""
    band, step = COARSE
    vectors = _band(images, *band)[:, :, step // 2 :: step, step // 2 :: step].reshape(len(images), -1)
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
    middle = np.zeros((size, size), np.float32)
    middle[SHIFT:-SHIFT, SHIFT:-SHIFT] = 1
    template = planes * middle
    # Correlations for all shifts at once, by the convolution theorem; none of those used wraps around.
    products = fft.irfft2((np.conj(fft.rfft2(template)) * fft.rfft2(others)).sum(axis=1), (size, size))
    energies = fft.irfft2(np.conj(fft.rfft2(middle)) * fft.rfft2((others**2).sum(axis=1)), (size, size))
    shifts = np.r_[: SHIFT + 1, -SHIFT:0]
    products, energies = (table[:, shifts[:, None], shifts] for table in (products, energies))
    norms = np.sqrt(np.maximum(energies, 0) * (template**2).sum(axis=(1, 2, 3))[:, None, None]) + 1
    return (products / norms).max(axis=(1, 2))
