"""What a study found."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from stages.report.plots.style import colours, house_style


def study(table: pd.DataFrame, label: str, *, logarithmic: bool = False, by_time: bool = True) -> Figure:
    """Top-1 on validation against what was varied, one line a model, and with `by_time` against minutes of training.

    There, the dots of a single model are labelled with what was varied.
    table: columns model, value, val_top1 (share), minutes. label: of the first axis; its ticks are the values.
    """
    palette = colours(list(dict.fromkeys(table["model"])))
    values = sorted(table["value"].unique())
    with house_style():
        columns = 1 + by_time
        figure, axes = plt.subplots(1, columns, figsize=(1.5 + 4 * columns, 3.8), sharey=True, squeeze=False)
        axis, *timed = axes[0]
        for model, colour in palette.items():
            own = table[table["model"] == model].sort_values("value")
            axis.plot(own["value"], own["val_top1"], color=colour, marker="o", label=model)
            for other in timed:
                other.plot(own["minutes"], own["val_top1"], color=colour, marker="o")
                if len(palette) == 1:
                    for _, row in own.iterrows():
                        other.annotate(
                            f"{row['value']:g}",
                            (row["minutes"], row["val_top1"]),
                            (6, -12),  # the curve rises to the right
                            textcoords="offset points",
                            fontsize=9,
                        )
        if logarithmic:
            axis.set_xscale("log")
            axis.minorticks_off()
        shares = 0 < values[0] < 1
        axis.set_xticks(values, [f"{value:.0%}" if shares else f"{value:g}" for value in values])
        axis.set_xlabel(label)
        for other in timed:
            other.set_xlabel("minutes" + (f"; at the dots: {label}" if len(palette) == 1 else " of training"))
            other.set_xlim(left=0)
        axis.set_ylim(0, min(1.0, 1.15 * table["val_top1"].max()))
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.set_ylabel("top-1 on validation")
        axis.legend(loc="best")
        return figure
