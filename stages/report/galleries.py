"""Figures that show images: the data set, corruptions, mistakes, suspected labels. Images are (N, H, W, 3) uint8."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stages.data.dataset import Prepared
from stages.report.charts import colours

COLUMNS = 8
SHEET_COLUMNS = 10  # classes, two superclasses a row
EXAMPLES = 2  # of each class
Mistakes = Sequence[Mapping[str, Any]]  # row (in the images), label, predicted, probability


def save(figure: Figure, file: Path) -> None:
    """Write a PNG, the same bytes for the same figure, and close it."""
    figure.savefig(file, format="png", metadata={"Software": None})  # by default it names matplotlib's version
    plt.close(figure)


@contextmanager
def _grid(rows: int, columns: int, width: float, row_height: float) -> Iterator[tuple[Figure, np.ndarray]]:
    """A figure and its axes (rows, columns), without ticks and frames; sizes in inches."""
    with plt.rc_context({"figure.dpi": 144, "figure.constrained_layout.use": True, "font.size": 8.5}):
        figure, axes = plt.subplots(rows, columns, figsize=(width, 0.4 + row_height * rows), squeeze=False)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
            axis.set_frame_on(False)
        yield figure, axes


def contact_sheet(images: np.ndarray, labels: np.ndarray, prepared: Prepared) -> Figure:
    """Two images of every class, classes of a superclass side by side; labels: (N,) integer."""
    order = sorted(range(len(prepared.class_names)), key=lambda label: (prepared.superclass_of_class[label], label))
    with _grid(-(-len(order) // SHEET_COLUMNS), SHEET_COLUMNS, 12, 0.9) as (figure, axes):
        for axis, label in zip(axes.flat, order, strict=False):
            rows = np.flatnonzero(labels == label)
            # Spread over the class: prepared images are sorted by their pixels, so the first ones are the darkest.
            chosen = rows[np.linspace(0, len(rows) - 1, EXAMPLES + 2).round().astype(int)[1:-1]]
            axis.imshow(np.concatenate(images[chosen], axis=1), interpolation="nearest")
            axis.set_title(prepared.class_names[label].replace("_", " "), fontsize=8.5, pad=3)
        title = f"{len(prepared.class_names)} classes in {len(prepared.superclass_names)} superclasses, two images each"
        figure.suptitle(title, fontsize=13)
        return figure


def corruptions(examples: Mapping[str, np.ndarray]) -> Figure:
    """One image under each corruption; examples: by corruption (1 + severities, H, W, 3), the clean one first."""
    severities = max(len(images) for images in examples.values())
    with _grid(severities, len(examples), 10, 1.2) as (figure, axes):
        for column, (corruption, images) in zip(axes.T, examples.items(), strict=True):
            column[0].set_title(corruption, fontsize=9)
            for axis, image in zip(column, images, strict=True):
                axis.imshow(image, interpolation="nearest")
        for severity, axis in enumerate(axes[:, 0]):
            axis.set_ylabel(f"severity {severity}" if severity else "clean", fontsize=9)
        return figure


def near_duplicates(pairs: np.ndarray, similarity: np.ndarray, threshold: float) -> Figure:
    """Pairs of images (N, H, 2 W, 3) with their similarity (N,), in falling order: those below `threshold` in grey."""
    with _grid(max(1, -(-len(pairs) // COLUMNS)), COLUMNS, 12, 0.95) as (figure, axes):
        for axis, pair, value in zip(axes.flat, pairs, similarity, strict=False):
            axis.imshow(pair, interpolation="nearest")
            axis.set_title(f"{value:.3f}", color="black" if value >= threshold else "grey", fontsize=8.5, pad=3)
        title = f"Test images, each beside the most similar training image; a near duplicate from {threshold} (black)"
        figure.suptitle(title, fontsize=12)
        return figure


def mistakes(images: np.ndarray, by_model: Mapping[str, Mistakes], class_names: Sequence[str]) -> Figure:
    """The most confident mistakes of each model, a row each."""
    palette = colours(list(by_model))
    with _grid(len(by_model), COLUMNS, 12, 2.15) as (figure, axes):
        for row, (model, found) in zip(axes, by_model.items(), strict=True):
            row[0].set_ylabel(model, weight="bold", fontsize=11)
            _show(row, images, found, class_names, palette[model])
        return figure


def suspects(images: np.ndarray, found: Mistakes, class_names: Sequence[str]) -> Figure:
    """Images for which all models predict the same other class: some of them may be mislabelled."""
    with _grid(max(1, -(-len(found) // COLUMNS)), COLUMNS, 12, 2.15) as (figure, axes):
        _show(list(axes.flat), images, found, class_names, "black")
        return figure


def _show(axes: Sequence[Axes], images: np.ndarray, found: Mistakes, class_names: Sequence[str], colour: str) -> None:
    for axis, mistake in zip(axes, found, strict=False):
        label, predicted = (class_names[mistake[key]].replace("_", " ") for key in ("label", "predicted"))
        axis.imshow(images[mistake["row"]], interpolation="nearest")
        axis.set_title(f"{predicted}\n{mistake['probability']:.0%}", color=colour, fontsize=8.5, pad=3)
        axis.set_xlabel(f"labelled\n{label}", fontsize=8.5)
