"""What a sweep found: top-1 against the parameters that were tried."""

import json
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from stages.report.plots.style import GREY, colours, house_style

Value = float | int | str | bool | None
BEST = "#D55E00"  # the frame of a map's best cell, on cividis
CELLS = 12  # of a map, in each direction: more values are panels
CELL = (1.05, 0.62)  # inches
PANELS = 3  # in a row
PANEL = (3.6, 3.4)  # inches
NARROWEST = 5.5  # inches, of a figure: its title needs them
LETTER = 0.09  # inches, of a tick's label
LONGEST = 18  # letters of a tick's label


def sweep(tried: Mapping[str, Sequence[Value]], top1: Sequence[float], *, model: str) -> Figure:
    """Top-1 on validation against the parameters that differ: a map where they are two, else a panel for each.

    tried: for each parameter its values, one for each of N settings. top1: shares, (N,).
    """
    with house_style():
        if len(tried) == 2 and max(len(_distinct(values)) for values in tried.values()) <= CELLS:
            figure = _map(tried, top1)
        else:
            figure = _panels(tried, top1, colours([model])[model])
        figure.suptitle(f"{model}: top-1 on validation", fontsize=13, weight="bold")
        return figure


def _map(tried: Mapping[str, Sequence[Value]], top1: Sequence[float]) -> Figure:
    (x_name, xs), (y_name, ys) = tried.items()
    columns, rows = _distinct(xs), _distinct(ys)[::-1]
    table = np.full((len(rows), len(columns)), np.nan)
    for x, y, value in zip(xs, ys, top1, strict=True):
        table[rows.index(y), columns.index(x)] = value
    size = max(NARROWEST, CELL[0] * len(columns) + 1.8), max(2.2, CELL[1] * len(rows) + 1.3)
    figure, axis = plt.subplots(figsize=size)
    axis.imshow(table, cmap="cividis", aspect="auto")
    darkest = min(top1) + 0.55 * (max(top1) - min(top1))  # below it black is hard to read: cividis is dark blue there
    best_row, best_column = np.unravel_index(np.nanargmax(table), table.shape)
    for (row, column), value in np.ndenumerate(table):
        axis.text(
            column,
            row,
            "none" if np.isnan(value) else f"{value:.1%}",
            ha="center",
            va="center",
            color=GREY if np.isnan(value) else "white" if value < darkest else "black",
            weight="bold" if (row, column) == (best_row, best_column) else "normal",
        )
    corner = (float(best_column) - 0.5, float(best_row) - 0.5)
    axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=BEST, linewidth=3, clip_on=False))
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    axis.set_yticks(range(len(rows)), [_label(value) for value in rows])
    _name_ticks(axis, columns, room=CELL[0])
    axis.set_xlabel(x_name)
    axis.set_ylabel(y_name)
    return figure


def _panels(tried: Mapping[str, Sequence[Value]], top1: Sequence[float], colour: str) -> Figure:
    columns, rows = min(PANELS, len(tried)), -(-len(tried) // PANELS)
    width = max(NARROWEST, PANEL[0] * columns)
    figure, axes = plt.subplots(rows, columns, figsize=(width, PANEL[1] * rows + 0.6), sharey=True, squeeze=False)
    best = int(np.argmax(top1))
    for axis, (name, values) in zip(axes.flat, tried.items(), strict=False):
        distinct = _distinct(values)
        place = dict(zip(map(repr, distinct), _scale(axis, distinct, width / columns - 0.7), strict=True))
        xs = [place[repr(value)] for value in values]
        highest = {x: max(y for other, y in zip(xs, top1, strict=True) if other == x) for x in sorted(set(xs))}
        if len(tried) > 1:
            axis.plot(xs, top1, "o", color=GREY, markersize=5, label="a setting")
        line = "o-" if _are_numbers(distinct) else "o"  # between words there is nothing
        axis.plot(list(highest), list(highest.values()), line, color=colour, label="the best with each value")
        axis.plot(xs[best], top1[best], "o", color=colour, markersize=11)
        axis.annotate(
            f"{top1[best]:.1%}",
            (xs[best], top1[best]),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            weight="bold",
        )
        axis.set_xlabel(name)
        axis.margins(x=0.12, y=0.18)
    for axis in list(axes.flat)[len(tried) :]:
        axis.remove()
    spread = max(top1) - min(top1)
    percent = PercentFormatter(1, decimals=0 if spread > 0.05 else 1 if spread > 0.005 else 2)
    axes[0, 0].yaxis.set_major_formatter(percent)  # of all: they share it
    if len(tried) > 1:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _scale(axis: Axes, values: Sequence[Value], width: float) -> list[float]:
    """Set scale and ticks of a panel `width` inches wide; returns where each of its values stands."""
    if not _are_numbers(values):
        _name_ticks(axis, values, room=width / len(values))
        return [float(place) for place in range(len(values))]
    numbers = np.array(values, dtype=float)
    logarithmic = _grows_by_factors(numbers)
    if logarithmic:
        axis.set_xscale("log")
    # A tick at every value tried, but none whose label would touch the one before.
    scaled = np.log(numbers) if logarithmic else numbers
    inches = (scaled - scaled[0]) / (np.ptp(scaled) or 1) * width * 0.8
    labels = [_label(value) for value in values]
    shown = [0]
    for index in range(1, len(values)):
        room = LETTER * (len(labels[index]) + len(labels[shown[-1]])) / 2 + 0.1
        if inches[index] - inches[shown[-1]] >= room:
            shown.append(index)
    axis.set_xticks(numbers[shown], [labels[index] for index in shown])
    axis.minorticks_off()
    return [float(number) for number in numbers]


def _name_ticks(axis: Axes, values: Sequence[Value], room: float) -> None:
    """Ticks at 0, 1, 2 ... with the values' names, aslant where one is longer than `room` inches."""
    labels = [_label(value) for value in values]
    axis.set_xticks(range(len(values)), labels)
    if max(map(len, labels)) * LETTER > room:
        plt.setp(axis.get_xticklabels(), rotation=30, ha="right", rotation_mode="anchor")


def _distinct(values: Sequence[Value]) -> list[Value]:
    """Each value once: numbers by size, anything else in the order given."""
    distinct = list({repr(value): value for value in values}.values())
    return sorted(distinct, key=lambda value: float(value or 0)) if _are_numbers(distinct) else distinct


def _are_numbers(values: Sequence[Value]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def _grows_by_factors(numbers: np.ndarray) -> bool:
    """Whether sorted numbers lie more evenly on a logarithmic scale than on a linear one."""
    if numbers[0] <= 0 or len(numbers) == 1:
        return False
    if len(numbers) == 2:
        return bool(numbers[1] / numbers[0] >= 10)

    def unevenness(scaled: np.ndarray) -> float:
        gaps = np.diff(scaled)
        return float(gaps.std() / gaps.mean())

    return unevenness(np.log(numbers)) < unevenness(numbers)


def _label(value: Value) -> str:
    if isinstance(value, str):
        text = value
    else:
        text = json.dumps(value) if value is None or isinstance(value, bool) else f"{value:g}"
    return text if len(text) <= LONGEST else f"…{text[1 - LONGEST :]}"
