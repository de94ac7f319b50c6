"""Learning curves of all models on shared axes."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from .style import GREY, colours, house_style


def learning_curves(histories: Mapping[str, pd.DataFrame], num_classes: int) -> Figure:
    """Validation top-1 against epochs and against minutes of training, one line a model.

    histories: for each model columns epoch, seconds and val_top1. Lines start at chance, 1 / num_classes: with a
    budget of one epoch there would be nothing but a point.
    """
    with house_style():
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
        chance = 1 / num_classes
        for model, colour in colours(list(histories)).items():
            history = histories[model]
            top1 = [chance, *history["val_top1"]]
            for axis, x in zip(axes, ([0, *history["epoch"]], [0, *history["seconds"] / 60]), strict=True):
                axis.plot(x, top1, color=colour, marker="o", markevery=slice(1, None), label=model, clip_on=False)
        for axis, label in zip(axes, ("epochs", "minutes of training"), strict=True):
            axis.axhline(chance, color=GREY, linestyle=":", linewidth=1.2)
            axis.set_xlabel(label)
            axis.set_xlim(left=0)
            axis.set_ylim(0, min(1.0, 1.15 * max(h["val_top1"].max() for h in histories.values())))
            axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[0].set_ylabel("top-1 on validation")
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
        axes[0].legend(loc="upper left")
        return figure
