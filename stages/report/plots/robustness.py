"""What becomes of accuracy when pictures get worse."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from stages.report.plots.style import colours, house_style

COLUMNS = 4


def robustness(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Top-1 against severity, one panel a corruption, one line a model.

    tables: by model the columns corruption, severity (0: clean), top1 (share).
    """
    palette = colours(list(tables))
    corruptions = list(dict.fromkeys(next(iter(tables.values()))["corruption"]))
    rows = -(-len(corruptions) // COLUMNS)
    with house_style():
        figure, axes = plt.subplots(
            rows, COLUMNS, figsize=(10, 0.6 + 2.3 * rows), sharex=True, sharey=True, squeeze=False
        )
        for axis in axes.flat[len(corruptions) :]:
            axis.remove()
        for axis, corruption in zip(axes.flat, corruptions, strict=False):
            for model, table in tables.items():
                own = table[table["corruption"] == corruption]
                axis.plot(own["severity"], own["top1"], color=palette[model], marker="o", markersize=4, label=model)
            axis.set_title(corruption)
            axis.set_xticks([0, 1, 2, 3], ["clean", "1", "2", "3"])
            axis.set_ylim(bottom=0)
            axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        for axis in axes[:, 0]:
            axis.set_ylabel("top-1")
        figure.supxlabel("severity", fontsize=10)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(tables))
        return figure


def corruption_examples(examples: Mapping[str, np.ndarray]) -> Figure:
    """One picture under each corruption.

    examples: by corruption (1 + severities, H, W, 3) uint8: the picture as it is, then the mildest first.
    """
    severities = max(len(images) for images in examples.values())
    with house_style():
        figure, axes = plt.subplots(severities, len(examples), figsize=(10, 1.3 * severities), squeeze=False)
        for column, (corruption, images) in zip(axes.T, examples.items(), strict=True):
            column[0].set_title(corruption, fontsize=9, loc="center")
            for axis, image in zip(column, images, strict=True):
                axis.imshow(image, interpolation="nearest")
                axis.set_xticks([])
                axis.set_yticks([])
                axis.grid(visible=False)
        for severity, axis in enumerate(axes[:, 0]):
            axis.set_ylabel(f"severity {severity}" if severity else "as it is", fontsize=9)
        return figure
