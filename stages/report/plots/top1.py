"""Top-1 of all models, beside the figures of others."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from stages.report.plots.style import GREY, colours, house_style


def top1(models: Mapping[str, Sequence[float]], others: Mapping[str, float], *, title: str) -> Figure:
    """Horizontal bars of top-1 (shares), the best on top: the models in their colours, `others` in grey.

    models: by name the share and the two ends of its interval, drawn as a whisker. others: the share alone.
    """
    palette = colours(list(models))
    bars = {name: (value, low, high) for name, (value, low, high) in models.items()}
    bars |= {name: (value, value, value) for name, value in others.items()}
    rows = sorted(bars.items(), key=lambda row: row[1][0])
    with house_style():
        figure, axis = plt.subplots(figsize=(9, 0.8 + 0.5 * len(rows)))
        axis.barh(
            [name for name, _ in rows],
            [value for _, (value, _, _) in rows],
            color=[palette.get(name, GREY) for name, _ in rows],
            height=0.66,
        )
        for position, (name, (value, low, high)) in enumerate(rows):
            if name in models:
                axis.errorbar(value, position, xerr=[[value - low], [high - value]], color="black", capsize=3, lw=1.2)
            axis.annotate(
                f"{value:.1%}", (high, position), (6, 0), textcoords="offset points", va="center", fontsize=10
            )
        # Room for the number behind the longest bar, and no tick at the very edge.
        axis.set_xlim(0, 1.14 * max(high for _, (_, _, high) in rows))
        step = 0.2 if axis.get_xlim()[1] > 0.5 else 0.1
        axis.set_xticks([tick for tick in np.arange(0, 1.01, step) if tick < axis.get_xlim()[1] * 0.97])
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.grid(axis="y", visible=False)
        axis.tick_params(axis="y", length=0)
        axis.set_title(title)
        return figure
