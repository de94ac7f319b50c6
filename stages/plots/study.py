"""What a study found."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .style import colours, house_style


def study(table: pd.DataFrame, label: str, *, logarithmic: bool = False) -> Figure:
    """Top-1 on validation against what was varied, and against minutes of training, one line a model.

    The dots of a single model are labelled with what was varied.
    table: columns model, value, val_top1 (share), minutes. label: of the first axis; its ticks are the values.
    """
    palette = colours(list(dict.fromkeys(table["model"])))
    values = sorted(table["value"].unique())
    with house_style():
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True)
        for model, colour in palette.items():
            own = table[table["model"] == model].sort_values("value")
            axes[0].plot(own["value"], own["val_top1"], color=colour, marker="o", label=model)
            axes[1].plot(own["minutes"], own["val_top1"], color=colour, marker="o")
            if len(palette) == 1:
                for _, row in own.iterrows():
                    axes[1].annotate(
                        f"{row['value']:g}",
                        (row["minutes"], row["val_top1"]),
                        (6, -12),  # the curve rises to the right
                        textcoords="offset points",
                        fontsize=9,
                    )
        if logarithmic:
            axes[0].set_xscale("log")
            axes[0].minorticks_off()
        shares = 0 < values[0] < 1
        axes[0].set_xticks(values, [f"{value:.0%}" if shares else f"{value:g}" for value in values])
        axes[0].set_xlabel(label)
        axes[1].set_xlabel("minutes of training" + (f"; at the dots: {label}" if len(palette) == 1 else ""))
        axes[1].set_xlim(left=0)
        axes[0].set_ylim(0, min(1.0, 1.15 * table["val_top1"].max()))
        axes[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes[0].set_ylabel("top-1 on validation")
        axes[0].legend(loc="best")
        return figure
