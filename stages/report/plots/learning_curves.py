"""Learning curves of all models on shared axes."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from stages.report.plots.style import GREY, colours, house_style

SMOOTHED = 5  # neighbouring reports, of some hundred pictures each


def learning_curves(
    histories: Mapping[str, pd.DataFrame], steps: Mapping[str, pd.DataFrame], num_classes: int
) -> Figure:
    """Top-1 against epochs and against minutes of training, one colour a model.

    histories: for each model columns epoch, seconds and val_top1, drawn as dots. steps: columns seconds and train_top1,
    of the batches in between: thin lines, a running mean of SMOOTHED rows; no rows where the training reported none.
    """
    with house_style():
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
        chance = 1 / num_classes
        highest = chance
        for model, colour in colours(list(histories)).items():
            history = histories[model]
            seconds = steps[model]["seconds"].to_numpy(float)
            epochs = np.interp(seconds, [0, *history["seconds"]], [0, *history["epoch"]])
            on_batches = steps[model]["train_top1"].astype(float).rolling(SMOOTHED, min_periods=1, center=True).mean()
            highest = max(highest, history["val_top1"].max(), on_batches.max() if len(on_batches) else 0)
            for axis, x, of_steps in zip(
                axes, (history["epoch"], history["seconds"] / 60), (epochs, seconds / 60), strict=True
            ):
                axis.plot(of_steps, on_batches, color=colour, linewidth=1, alpha=0.8)
                axis.plot(x, history["val_top1"], color=colour, marker="o", label=model, clip_on=False)
        for axis, label in zip(axes, ("epochs", "minutes of training"), strict=True):
            axis.axhline(chance, color=GREY, linestyle=":", linewidth=1.2)
            axis.set_xlabel(label)
            axis.set_xlim(left=0)
            axis.set_ylim(0, min(1.0, 1.15 * highest))
            axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].set_ylabel("top-1")
        axes[0].set_title("By epochs")
        axes[1].set_title("By time")
        axes[1].annotate(
            "chance",
            (1, chance),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            color="#666666",
            fontsize=9,
        )
        kinds = [
            Line2D([], [], color=GREY, marker="o", linestyle="", label="on validation"),
            Line2D([], [], color=GREY, linewidth=1, label="on the batches trained on"),
        ]
        models = axes[0].get_legend_handles_labels()[0]
        figure.legend(handles=[*models, *kinds], loc="outside upper center", ncols=5, fontsize=9)
        return figure
