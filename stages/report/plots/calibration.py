"""Whether probabilities mean what they say."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from stages.report.plots.style import GREY, colours, house_style


def reliability(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Accuracy against confidence before and after calibration, one panel a model; on the diagonal they agree.

    tables: by model the columns calibration (before, after), confidence, accuracy (shares).
    """
    palette = colours(list(tables))
    with house_style():
        figure, axes = plt.subplots(1, len(tables), figsize=(3.3 * len(tables), 3.6), sharey=True, squeeze=False)
        for axis, (model, table) in zip(axes[0], tables.items(), strict=True):
            axis.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.2)
            for state, colour, marker in (("before", GREY, "s"), ("after", palette[model], "o")):
                bins = table[table["calibration"] == state]
                axis.plot(
                    bins["confidence"], bins["accuracy"], color=colour, marker=marker, ms=4, label=state, clip_on=False
                )
            axis.set_xlim(0, 1)
            axis.set_ylim(0, 1)
            axis.set_aspect("equal")
            for side in (axis.xaxis, axis.yaxis):
                side.set_major_formatter(PercentFormatter(1, decimals=0))
            axis.set_xticks([0, 0.5, 1])
            axis.set_title(model)
            axis.set_xlabel("probability given")
            axis.legend(loc="upper left")
        axes[0][0].set_ylabel("share that is right, on test")
        return figure
