"""What is taken for what."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from stages.report.plots.style import colours, house_style

MUCH = 0.5  # share from which a field is dark


def superclass_confusion(counts: np.ndarray, superclass_names: Sequence[str], *, title: str) -> Figure:
    """Shares of each superclass's pictures (rows) by the superclass they were put into (columns), in percent.

    counts: (S, S) pictures. Empty fields: less than half a percent.
    """
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    names = [name.replace("_", " ") for name in superclass_names]
    with house_style():
        figure, axis = plt.subplots(figsize=(10, 9))
        # Square root: mistakes of a few percent are what there is to see.
        axis.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(shares.shape):
            if shares[row, column] >= 0.005:
                axis.text(
                    column,
                    row,
                    f"{100 * shares[row, column]:.0f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if np.sqrt(shares[row, column]) > MUCH else "black",
                )
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8.5)
        axis.set_yticks(range(len(names)), names, fontsize=8.5)
        axis.set_xlabel("superclass of the answer")
        axis.set_ylabel("superclass of the picture")
        axis.grid(visible=False)
        axis.set_title(title)
        return figure


def confused_pairs(
    pairs: Mapping[str, Sequence[Mapping[str, int]]], class_names: Sequence[str], per_class: int
) -> Figure:
    """For each model the pairs of classes it mixes up most, in both directions.

    pairs: by model dicts of first, second, first_as_second, second_as_first, most frequent first.
    per_class: test pictures of a class, for the title.
    """
    palette = colours(list(pairs))
    names = [name.replace("_", " ") for name in class_names]
    longest = max([1, *(len(rows) for rows in pairs.values())])
    with house_style():
        figure, axes = plt.subplots(
            len(pairs), 1, figsize=(9, 0.9 + len(pairs) * (0.7 + 0.24 * longest)), sharex=True, squeeze=False
        )
        for axis, (model, rows) in zip(axes[:, 0], pairs.items(), strict=True):
            places = range(len(rows) - 1, -1, -1)
            there = [row["first_as_second"] for row in rows]
            back = [row["second_as_first"] for row in rows]
            axis.barh(places, there, color=palette[model], height=0.7)
            axis.barh(places, back, left=there, color=palette[model], alpha=0.5, height=0.7)
            for place, row in zip(places, rows, strict=True):
                left, right = row["first_as_second"], row["second_as_first"]
                axis.annotate(
                    f"{left} + {right}",
                    (left + right, place),
                    (4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                )
            axis.set_yticks(places, [f"{names[row['first']]} / {names[row['second']]}" for row in rows], fontsize=8.5)
            axis.grid(axis="y", visible=False)
            axis.tick_params(axis="y", length=0)
            axis.set_title(model)
        # Room for the numbers behind the longest bar.
        axes[-1, 0].set_xlim(0, 1.12 * axes[-1, 0].dataLim.xmax)
        axes[-1, 0].set_xlabel(
            f"pictures: first taken for second (dark) + second for first (light), of {per_class} each"
        )
        return figure


def class_accuracy(shares: Mapping[str, np.ndarray], class_names: Sequence[str]) -> Figure:
    """Top-1 within each class, a dot for each model, classes sorted by the mean of the models, worst first.

    shares: by model (C,), between 0 and 1.
    """
    palette = colours(list(shares))
    order = np.argsort(np.mean(list(shares.values()), axis=0), kind="stable")
    halves = np.array_split(order, 2)
    with house_style():
        figure, axes = plt.subplots(1, 2, figsize=(10, 1.2 + 0.19 * len(halves[0])), sharex=True)
        for axis, classes in zip(axes, halves, strict=True):
            places = np.arange(len(classes))[::-1]
            own = np.array([values[classes] for values in shares.values()])
            axis.hlines(places, own.min(axis=0), own.max(axis=0), color="#cccccc", linewidth=1, zorder=1)
            # Ever smaller: where models are equal, each can still be seen.
            for (model, values), size in zip(shares.items(), np.linspace(7, 3.5, len(shares)), strict=True):
                colour = palette[model]
                axis.plot(values[classes], places, "o", color=colour, markersize=size, label=model, clip_on=False)
            axis.set_yticks(places, [class_names[index].replace("_", " ") for index in classes], fontsize=8)
            axis.set_ylim(-0.8, len(halves[0]) - 0.2)
            axis.set_xlim(0, 1)
            axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axis.grid(axis="y", visible=False)
            axis.tick_params(axis="y", length=0)
            axis.set_xlabel("top-1 on test")
        axes[0].set_title("Harder half of the classes")
        axes[1].set_title("Easier half")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(shares))
        return figure
