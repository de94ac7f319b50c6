"""Pictures with what was said of them."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from stages.report.plots.style import colours, house_style

COLUMNS = 8


def mistakes(
    images: np.ndarray, of_model: Mapping[str, Sequence[Mapping[str, float]]], class_names: Sequence[str]
) -> Figure:
    """The wrong answers that each model gave with the highest probability, a row of pictures each.

    images: (N, H, W, 3) uint8; of_model: dicts of row, label, predicted, probability.
    """
    palette = colours(list(of_model))
    with house_style():
        figure, axes = plt.subplots(len(of_model), COLUMNS, figsize=(12, 0.3 + 2.15 * len(of_model)), squeeze=False)
        for row, (model, found) in zip(axes, of_model.items(), strict=True):
            _show(row, images, found, class_names, palette[model])
            row[0].text(
                -0.12, 0.5, model, rotation=90, transform=row[0].transAxes, ha="right", va="center", weight="bold"
            )
        return figure


def suspects(images: np.ndarray, found: Sequence[Mapping[str, float]], class_names: Sequence[str]) -> Figure:
    """Pictures for which all models name the same other class: some of them may carry the wrong label."""
    rows = max(1, -(-len(found) // COLUMNS))
    with house_style():
        figure, axes = plt.subplots(rows, COLUMNS, figsize=(12, 0.2 + 2.15 * rows), squeeze=False)
        _show(list(axes.flat), images, found, class_names, "black")
        return figure


def _show(
    axes: Sequence[plt.Axes],
    images: np.ndarray,
    found: Sequence[Mapping[str, float]],
    class_names: Sequence[str],
    colour: str,
) -> None:
    for axis in axes:
        axis.axis("off")
    for axis, mistake in zip(axes, found, strict=False):
        label, predicted = (class_names[int(mistake[key])].replace("_", " ") for key in ("label", "predicted"))
        axis.imshow(images[int(mistake["row"])], interpolation="nearest")
        axis.set_title(f"{predicted}\n{mistake['probability']:.0%}", color=colour, fontsize=8.5, loc="center", pad=3)
        axis.text(0.5, -0.04, f"labelled\n{label}", transform=axis.transAxes, ha="center", va="top", fontsize=8.5)
