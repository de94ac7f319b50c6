"""What accuracy costs."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from stages.report.plots.style import GREY, colours, house_style


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, value) that no other point beats in both, by rising cost."""
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1])):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def accuracy_against_cost(models: Mapping[str, Mapping[str, float]], costs: Mapping[str, str]) -> Figure:
    """Top-1 on test against each cost, on logarithmic axes, the models that no other one beats joined by a line.

    models: by name top1, top1_low, top1_high (shares) and the costs. costs: key to label.
    """
    palette = colours(list(models))
    with house_style():
        figure, axes = plt.subplots(1, len(costs), figsize=(4.5 * len(costs), 3.8), sharey=True, squeeze=False)
        for axis, (cost, label) in zip(axes[0], costs.items(), strict=True):
            names = list(models)
            points = [(models[name][cost], models[name]["top1"]) for name in names]
            front = [points[index] for index in pareto_front(points)]
            axis.plot(*zip(*front, strict=True), color=GREY, linestyle="--", linewidth=1.2, zorder=1)
            for name, (x, y) in zip(names, points, strict=True):
                ends = [[y - models[name]["top1_low"]], [models[name]["top1_high"] - y]]
                axis.errorbar(x, y, yerr=ends, fmt="o", color=palette[name], capsize=3, markersize=8, label=name)
            _logarithmic(axis, [x for x, _ in points])
            axis.set_xlabel(label)
            axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes[0][0].set_ylabel("top-1 on test")
        highest = max(model["top1_high"] for model in models.values())
        axes[0][0].set_ylim(0, min(1.0, 1.15 * highest))
        axes[0][-1].legend(loc="lower right")
        axes[0][0].set_title("What accuracy costs")
        return figure


def _logarithmic(axis: Axes, values: Sequence[float]) -> None:
    axis.set_xscale("log")
    axis.set_xlim(min(values) / 1.8, max(values) * 1.8)
    # 1, 2, 5, 10, 20 ... as plain numbers: powers of ten alone would leave most axes with one tick.
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
