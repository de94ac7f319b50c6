"""The comparison as interactive charts: tables in, Altair charts out. Importing this takes a second: pages do it late.

Each model has one colour everywhere; pointing at a mark tells its numbers, a click on the legend singles a model out.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

# Okabe and Ito's palette (2008), told apart by colour-blind readers too; as in the figures of the report.
_COLOURS = {"vit_scratch": "#D55E00", "vit_transfer": "#0072B2", "mobilenet_transfer": "#009E73"}
_FURTHER = ("#CC79A7", "#E69F00", "#56B4E9", "#999999")  # grey, not black: some read on a dark page
GREY = "#999999"
HEIGHT = 380  # pixels, legend and axes included
PERCENT = ".1%"
SMOOTHED = 5  # neighbouring reports of a training, of some hundred pictures each
_ZERO_TO_ONE = alt.Scale(domain=[0, 1])
Layers = alt.LayerChart | alt.FacetChart
COSTS = {
    "milliseconds": "milliseconds a picture (median)",
    "minutes": "minutes of training",
    "megabytes": "megabytes of weights",
}


def colours(models: Sequence[str]) -> dict[str, str]:
    """The colour of each model: always the same for those of the house, in order for others."""
    others = [model for model in models if model not in _COLOURS]
    return {model: _COLOURS.get(model) or _FURTHER[others.index(model) % len(_FURTHER)] for model in models}


def accuracy_against_cost(summary: pd.DataFrame, cost: str) -> Layers:
    """Top-1 on test with its 95 % interval against one of COSTS; summary: of Comparison.summary."""
    x = alt.X(cost, title=COSTS[cost], scale=alt.Scale(zero=True, nice=True))
    tooltip = [
        alt.Tooltip("model"),
        alt.Tooltip("top1", title="top-1", format=PERCENT),
        alt.Tooltip("low", title="from", format=PERCENT),
        alt.Tooltip("high", title="to", format=PERCENT),
        alt.Tooltip(cost, title=COSTS[cost], format=",.1f"),
    ]
    chosen = _chosen_in_legend()
    base = alt.Chart(summary).encode(x=x, color=_colour(summary), opacity=_faded(chosen), tooltip=tooltip)
    title = "top-1 on test"
    points = base.mark_point(filled=True, size=70).encode(y=_share("top1", title))
    # Drawn last, with ends: most are shorter than a dot is high.
    intervals = base.mark_rule(strokeWidth=1.5).encode(y=_share("low", title), y2="high")
    tick = base.mark_tick(thickness=1.5, size=16, orient="horizontal")
    ends = [tick.encode(y=_share(end, title)) for end in ("low", "high")]
    return alt.layer(points.add_params(chosen), intervals, *ends).properties(height=HEIGHT)


def learning_curves(curves: pd.DataFrame, steps: pd.DataFrame, measure: str) -> Layers:
    """A measure, top1 or loss, over the minutes of training: dots on validation, a thin line on the batches between.

    curves: a row for each epoch; steps: for each report in between, smoothed here; without rows there are no lines.
    """
    is_share = measure == "top1"
    title = "top-1" if is_share else "loss (nats)"
    of_batch, of_epoch = f"train_{measure}", f"val_{measure}"
    table = curves.assign(minutes=curves["seconds"] / 60)
    by_model = steps.astype({"seconds": float, of_batch: float}).groupby("model", sort=False)
    smooth = by_model[of_batch].transform(lambda rows: rows.rolling(SMOOTHED, min_periods=1, center=True).mean())
    between = steps.assign(minutes=steps["seconds"].astype(float) / 60, **{of_batch: smooth})

    def y(column: str) -> alt.Y:
        return _share(column, title) if is_share else alt.Y(column, title=title, scale=alt.Scale(zero=False))

    def tooltip(column: str, name: str, place: str) -> list[alt.Tooltip]:
        shown = alt.Tooltip(column, title=name, format=PERCENT if is_share else ".3f")
        return [alt.Tooltip("model"), alt.Tooltip(place), alt.Tooltip("minutes", format=".1f"), shown]

    x = alt.X("minutes", title=COSTS["minutes"], scale=alt.Scale(zero=True))
    dots = _lines(table, x, y(of_epoch), "epoch", tooltip(of_epoch, f"{title} on validation", "epoch"))
    lines = alt.Chart(between).mark_line(strokeWidth=1)
    thin = lines.encode(
        x=x, y=y(of_batch), color=_colour(table), order="step", tooltip=tooltip(of_batch, f"{title} on batches", "step")
    )
    layers = (thin, dots) if len(between) else (dots,)
    return alt.layer(*layers).properties(height=HEIGHT)


def robustness(table: pd.DataFrame, corruption: str | None) -> alt.Chart:
    """Top-1 by severity under one corruption; None: the mean of all."""
    if corruption is None:
        rows = table.groupby(["model", "severity"], sort=False)["top1"].mean().reset_index()
    else:
        rows = table[table["corruption"] == corruption]
    return _lines(
        rows,
        x=alt.X("severity:O", title="severity (0: as they are)", axis=alt.Axis(labelAngle=0)),
        y=_share("top1", "top-1", _ZERO_TO_ONE),
        order="severity",
        tooltip=[alt.Tooltip("model"), alt.Tooltip("severity"), alt.Tooltip("top1", title="top-1", format=PERCENT)],
    )


def reliability(table: pd.DataFrame, calibration: str) -> Layers:
    """How often answers of a confidence are right, `before` or `after` calibration; on the grey line: as promised."""
    rows = table[table["calibration"] == calibration]
    x = alt.X("confidence", title="confidence of the answer", axis=alt.Axis(format="%"), scale=_ZERO_TO_ONE)
    y = _share("accuracy", "right answers", _ZERO_TO_ONE)
    curves = _lines(
        rows,
        x=x,
        y=y,
        order="confidence",
        tooltip=[
            alt.Tooltip("model"),
            alt.Tooltip("confidence", format=PERCENT),
            alt.Tooltip("accuracy", title="right", format=PERCENT),
            alt.Tooltip("pictures"),
        ],
    )
    promised = pd.DataFrame({"confidence": [0.0, 1.0], "accuracy": [0.0, 1.0]})
    line = alt.Chart(promised).mark_line(color=GREY, strokeDash=[4, 4]).encode(x=x, y=y)
    return alt.layer(line, curves).properties(height=HEIGHT)


def superclass_confusion(table: pd.DataFrame, model: str, order: Sequence[str]) -> Layers:
    """Where a model's answers go: a row for the superclass of the picture, a column for that of the answer.

    Wrong answers in the model's colour, the stronger the larger their share of the row; the diagonal is grey.
    """
    rows = table[table["model"] == model]
    is_right = rows["actual"] == rows["predicted"]
    strongest = max(float(rows.loc[~is_right, "share"].max()), 0.01) if (~is_right).any() else 1.0
    encoding: dict[str, Any] = {
        "x": alt.X(
            "predicted:N",
            title="superclass of the answer",
            sort=list(order),
            axis=_names(labelOverlap="greedy", labelAngle=-90),
        ),
        "y": alt.Y("actual:N", title="superclass of the picture", sort=list(order), axis=_names(labelOverlap=False)),
        "tooltip": [
            alt.Tooltip("actual", title="picture"),
            alt.Tooltip("predicted", title="answer"),
            alt.Tooltip("pictures", format=","),
            alt.Tooltip("share", title="of the row", format=PERCENT),
        ],
    }
    # Opacity instead of a scale of colours: empty cells look like the page, light or dark.
    opacity = alt.Opacity("share", scale=alt.Scale(type="sqrt", domain=[0, strongest], range=[0, 1]), legend=None)
    wrong = alt.Chart(rows[~is_right]).mark_rect(color=colours(list(table["model"].unique()))[model])
    right = alt.Chart(rows[is_right]).mark_rect(color=GREY, opacity=0.35)
    layers = wrong.encode(opacity=opacity, **encoding), right.encode(**encoding)
    return alt.layer(*layers).properties(height=190 + 22 * len(order))


def _lines(table: pd.DataFrame, x: alt.X, y: alt.Y, order: str, tooltip: Sequence[alt.Tooltip]) -> alt.Chart:
    lines = alt.Chart(table).mark_line(point=alt.OverlayMarkDef(size=60), strokeWidth=2.5)
    chosen = _chosen_in_legend()
    encoded = lines.encode(x=x, y=y, color=_colour(table), opacity=_faded(chosen), order=order, tooltip=tooltip)
    return encoded.add_params(chosen).properties(height=HEIGHT)


def _names(**options: Any) -> alt.Axis:
    return alt.Axis(labelLimit=130, labelFlush=False, **options)


def _share(column: str, title: str, scale: alt.Scale | None = None) -> alt.Y:
    return alt.Y(column, title=title, axis=alt.Axis(format="%"), scale=scale or alt.Scale(zero=False))


def _colour(table: pd.DataFrame) -> alt.Color:
    of_model = colours(list(table["model"].unique()))
    scale = alt.Scale(domain=list(of_model), range=list(of_model.values()))
    return alt.Color("model:N", scale=scale, legend=alt.Legend(title=None, orient="top", columns=2, labelLimit=150))


def _chosen_in_legend() -> alt.Parameter:
    return alt.selection_point(fields=["model"], bind="legend")


def _faded(chosen: alt.Parameter) -> Any:
    """Whole for the models chosen (all, where none is), faint for the others."""
    return alt.condition(chosen, alt.value(1.0), alt.value(0.12))
