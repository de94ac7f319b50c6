"""A look at the pictures themselves."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from stages.report.plots.style import house_style

COLUMNS = 10  # classes, two superclasses a row
EXAMPLES = 2  # of each class


def contact_sheet(
    images: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    superclass_names: Sequence[str],
    superclass_of_class: Sequence[int],
) -> Figure:
    """Two pictures of every class, classes of a superclass side by side.

    images: (N, H, W, 3) uint8; labels: (N,) integer.
    """
    order = sorted(range(len(class_names)), key=lambda label: (superclass_of_class[label], label))
    rows = -(-len(order) // COLUMNS)
    with house_style():
        figure, axes = plt.subplots(rows, COLUMNS, figsize=(12, 0.9 * rows + 0.4), squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for axis, label in zip(axes.flat, order, strict=False):
            rows_of_class = np.flatnonzero(labels == label)
            # Spread over the class: prepared pictures are sorted by their pixels, so the first ones are the darkest.
            chosen = rows_of_class[np.linspace(0, len(rows_of_class) - 1, EXAMPLES + 2).round().astype(int)[1:-1]]
            axis.imshow(np.concatenate([images[row] for row in chosen], axis=1), interpolation="nearest")
            axis.set_title(class_names[label].replace("_", " "), fontsize=8.5, loc="center", weight="normal", pad=3)
        figure.suptitle(
            f"{len(class_names)} classes in {len(superclass_names)} superclasses, two pictures each", fontsize=13
        )
        return figure
