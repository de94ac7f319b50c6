"""Every chart, once: tables in, Altair charts out. Reports save them as PNG, the app shows them with tooltips.

Each model has one colour everywhere; a click on the legend singles a model out. `model` is a column of every table.
Imports nothing of ours: the app uses this module where the pipeline's libraries are absent.
"""

import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from PIL import Image

# Okabe and Ito's palette (2008, https://jfly.uni-koeln.de/color/): told apart by colour-blind readers too.
_COLOURS = {"vit_scratch": "#D55E00", "vit_transfer": "#0072B2", "mobilenet_transfer": "#009E73"}
_FURTHER = ("#CC79A7", "#E69F00", "#56B4E9", "#999999")  # grey, not black: some read on a dark page
GREY = "#999999"
HEIGHT = 380  # pixels, legend and axes included
PERCENT = ".1%"
SMOOTHED = 5  # neighbouring training reports, of some hundred images each, in a running mean
COSTS = {
    "milliseconds": "milliseconds per image (median)",
    "minutes": "minutes of training",
    "megabytes": "megabytes of weights",
}
_ON_VALIDATION = "top-1 on validation"
_ZERO_TO_ONE = alt.Scale(domain=[0, 1])
_CHOSEN = alt.selection_point(name="chosen", fields=["model"], bind="legend")
_FADED = alt.condition(_CHOSEN, alt.value(1.0), alt.value(0.12))  # where others were chosen in the legend
Layers = alt.LayerChart | alt.FacetChart  # what alt.layer is declared to give
Chart = alt.Chart | Layers | alt.HConcatChart | alt.VConcatChart | alt.ConcatChart


def colours(models: Sequence[str]) -> dict[str, str]:
    """The colour of each model: fixed for those of params.yaml as published, in order for others."""
    others = [model for model in models if model not in _COLOURS]
    return {model: _COLOURS.get(model) or _FURTHER[others.index(model) % len(_FURTHER)] for model in models}


def save(chart: Chart, file: Path, title: str = "", subtitle: str = "") -> None:
    """Write a PNG on white, the same bytes for the same chart."""
    if title:
        chart = chart.properties(title=alt.TitleParams(title, subtitle=subtitle, fontSize=15, frame="bounds", offset=8))
    chart = (
        chart.configure(background="white", font="Liberation Sans", padding=12)  # a font that comes with vl-convert
        .configure_axis(labelFontSize=11, titleFontSize=12, titleFontWeight="normal", gridColor="#e4e4e4")
        .configure_legend(labelFontSize=12)
        .configure_title(fontSize=13, anchor="start", frame="group", subtitleFontSize=12, subtitleColor="#444444")
        .configure_view(stroke=None)
    )
    drawn = BytesIO()
    with alt.data_transformers.disable_max_rows():  # long trainings report more than 5,000 times
        chart.save(drawn, format="png", scale_factor=2)
    Image.open(drawn).convert("RGB").save(file, "PNG", optimize=True)  # a quarter of the bytes, the same pixels


def top1(table: pd.DataFrame) -> Layers:
    """Bars of top-1, the best first: name, top1, low, high (shares), model (empty for others' figures, drawn in grey).

    low and high are drawn as a whisker where the bar is a model's.
    """
    palette = colours([model for model in table["model"] if model])
    order = list(table.sort_values("top1", ascending=False, kind="stable")["name"])
    base = alt.Chart(table).encode(y=alt.Y("name", sort=order, title=None, axis=_names(300)))
    ends = alt.Scale(domain=[0, min(1.0, 1.14 * float(table["high"].max()))])
    x = alt.X("top1", title="top-1 on test", axis=alt.Axis(format="%"), scale=ends)
    colour = alt.Color("model", scale=alt.Scale(domain=["", *palette], range=[GREY, *palette.values()]), legend=None)
    of_models = base.transform_filter("datum.model != ''")
    return alt.layer(
        base.mark_bar(size=26).encode(x=x, color=colour),
        of_models.mark_rule().encode(x="low", x2="high"),
        *(of_models.mark_tick(color="black", size=10).encode(x=end) for end in ("low", "high")),
        base.mark_text(align="left", dx=6, fontSize=12).encode(x="high", text=alt.Text("top1", format=PERCENT)),
    ).properties(width=560, height=alt.Step(38))


def panels(charts: Sequence[Chart], columns: int, width: int, height: int) -> alt.ConcatChart:
    """Charts side by side, each of this size in pixels, with one legend."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Automatically deduplicated")  # the legend: one for all is meant
        return alt.concat(*(chart.properties(width=width, height=height) for chart in charts), columns=columns)


def pareto_front(summary: pd.DataFrame, cost: str) -> pd.DataFrame:
    """The rows that no other one beats in both top-1 and cost, cheapest first."""
    rows = summary.sort_values([cost, "top1"], ascending=[True, False])
    return rows[rows["top1"] > rows["top1"].cummax().shift(fill_value=-1)]


def accuracy_against_cost(summary: pd.DataFrame, cost: str) -> Layers:
    """Top-1 on test with its 95 % interval against one of COSTS, the Pareto front dashed.

    summary: columns top1, low, high (shares) and those of COSTS, a row for each model.
    """
    x = alt.X(cost, title=COSTS[cost], scale=alt.Scale(zero=True, nice=True))
    tooltip = [
        alt.Tooltip("model"),
        *(alt.Tooltip(key, format=PERCENT) for key in ("top1", "low", "high")),
        alt.Tooltip(cost, title=COSTS[cost], format=",.1f"),
    ]
    base = alt.Chart(summary).encode(x=x, color=_colour(summary), opacity=_FADED, tooltip=tooltip)
    title = "top-1 on test"
    front = alt.Chart(pareto_front(summary, cost)).mark_line(color=GREY, strokeDash=[4, 4], strokeWidth=1.2)
    points = base.mark_point(filled=True, size=70).encode(y=_share("top1", title))
    # Drawn last, with ends: most are shorter than a dot is high.
    intervals = base.mark_rule(strokeWidth=1.5).encode(y=_share("low", title), y2="high")
    tick = base.mark_tick(thickness=1.5, size=16, orient="horizontal")
    ends = [tick.encode(y=_share(end, title)) for end in ("low", "high")]
    layers = front.encode(x=x, y=_share("top1", title)), points.add_params(_CHOSEN), intervals, *ends
    return alt.layer(*layers).properties(height=HEIGHT)


def learning_curves(
    curves: pd.DataFrame, steps: pd.DataFrame, measure: str, by: str = "minutes", chance: float | None = None
) -> Layers:
    """A measure, top1 or loss, by minutes or epochs: dots on validation, a thin line on the training batches between.

    curves: a row for each epoch; steps: for each report in between, smoothed here; without rows there are no lines.
    chance: top-1 of guessing, drawn as a dotted line.
    """
    is_share = measure == "top1"
    title = "top-1" if is_share else "loss (nats)"
    of_batch, of_epoch = f"train_{measure}", f"val_{measure}"
    table = curves.assign(minutes=curves["seconds"] / 60, epochs=curves["epoch"])
    between = steps.astype({"seconds": float, of_batch: float}).assign(epochs=np.nan)
    between["minutes"] = between["seconds"] / 60
    for model, rows in between.groupby("model"):
        own = table[table["model"] == model]
        between.loc[rows.index, "epochs"] = np.interp(rows["seconds"], [0, *own["seconds"]], [0, *own["epoch"]])
        between.loc[rows.index, of_batch] = rows[of_batch].rolling(SMOOTHED, min_periods=1, center=True).mean()

    def y(column: str) -> alt.Y:
        return _share(column, title) if is_share else alt.Y(column, title=title, scale=alt.Scale(zero=False))

    def tooltip(column: str, name: str, place: str) -> list[alt.Tooltip]:
        shown = alt.Tooltip(column, title=name, format=PERCENT if is_share else ".3f")
        return [alt.Tooltip("model"), alt.Tooltip(place), alt.Tooltip("minutes", format=".1f"), shown]

    axis = alt.Axis(tickMinStep=1) if by == "epochs" else alt.Axis()
    x = alt.X(by, title=COSTS.get(by, by), scale=alt.Scale(zero=True), axis=axis)
    dots = _lines(table, x, y(of_epoch), "epoch", tooltip(of_epoch, f"{title} on validation", "epoch"))
    layers: list[alt.Chart] = [dots]
    if len(between):
        thin = alt.Chart(between).mark_line(strokeWidth=1)
        thin = thin.encode(x=x, y=y(of_batch), color=_colour(table), order="step")
        layers.insert(0, thin.encode(tooltip=tooltip(of_batch, f"{title} on batches", "step")))
    return alt.layer(*layers, *_chance(chance)).properties(height=HEIGHT)


def top1_on_validation(table: pd.DataFrame, x: str, title: str, chance: float | None = None) -> Layers:
    """Top-1 on validation against a column: model, seed, val_top1; a line for each training. chance: as above."""
    axis = alt.X(x, title=title, scale=alt.Scale(zero=True))
    tooltip = [alt.Tooltip("model"), alt.Tooltip("seed"), alt.Tooltip(x, title=title, format=",.3~r")]
    tooltip.append(alt.Tooltip("val_top1", title="top-1", format=PERCENT))
    lines = _lines(table, axis, _share("val_top1", "top-1 on validation"), x, tooltip)
    lines = lines.mark_line(point=alt.OverlayMarkDef(size=30), strokeWidth=1.5).encode(detail="seed:N")
    return alt.layer(lines, *_chance(chance)).properties(height=HEIGHT)


def _chance(chance: float | None) -> list[alt.Chart]:
    if chance is None:
        return []
    line = alt.Chart(pd.DataFrame({"chance": [chance]}))
    text = line.mark_text(align="right", dy=-7, color="#666666").encode(x=alt.value("width"), y="chance")
    rule = line.mark_rule(color=GREY, strokeDash=[2, 3]).encode(y="chance")
    return [rule, text.encode(text=alt.value("chance"))]


def robustness(table: pd.DataFrame, corruption: str | None) -> alt.Chart:
    """Top-1 by severity under one corruption; None: the mean of all. Columns corruption, severity (0: clean), top1."""
    rows = table if corruption is None else table[table["corruption"] == corruption]
    return _lines(
        rows.groupby(["model", "severity"], sort=False)["top1"].mean().reset_index(),
        x=alt.X("severity:O", title="severity (0: clean)", axis=alt.Axis(labelAngle=0)),
        y=_share("top1", "top-1", _ZERO_TO_ONE),
        order="severity",
        tooltip=[alt.Tooltip("model"), alt.Tooltip("severity"), alt.Tooltip("top1", title="top-1", format=PERCENT)],
    )


def reliability(table: pd.DataFrame, calibration: str) -> Layers:
    """Accuracy by confidence, `before` or `after` calibration; on the dashed diagonal they agree."""
    rows = table[table["calibration"] == calibration]
    x = alt.X("confidence", title="confidence", axis=alt.Axis(format="%"), scale=_ZERO_TO_ONE)
    y = _share("accuracy", "accuracy on test", _ZERO_TO_ONE)
    shares = [alt.Tooltip(column, format=PERCENT) for column in ("confidence", "accuracy")]
    curves = _lines(rows, x, y, order="confidence", tooltip=[alt.Tooltip("model"), *shares, alt.Tooltip("images")])
    diagonal = pd.DataFrame({"confidence": [0.0, 1.0], "accuracy": [0.0, 1.0]})
    line = alt.Chart(diagonal).mark_line(color=GREY, strokeDash=[4, 4]).encode(x=x, y=y)
    return alt.layer(line, curves).properties(height=HEIGHT)


def superclass_confusion(table: pd.DataFrame, model: str, numbers: bool = False) -> Layers:
    """Shares of each true superclass (row) by predicted superclass (column); numbers: in per cent, from half a one.

    Errors in the model's colour, the stronger the larger their share of the row; the diagonal is grey.
    table: actual, predicted, images, share; superclasses appear in the order of the table.
    """
    rows = table[table["model"] == model]
    order = list(rows["actual"].unique())
    is_right = rows["actual"] == rows["predicted"]
    strongest = max(float(rows.loc[~is_right, "share"].max()), 0.01) if (~is_right).any() else 1.0
    limit = 200 if numbers else 130
    across = _names(limit, labelOverlap=False if numbers else "greedy", labelAngle=-90)
    encoding: dict[str, Any] = {
        "x": alt.X("predicted:N", title="predicted superclass", sort=order, axis=across),
        "y": alt.Y("actual:N", title="true superclass", sort=order, axis=_names(limit)),
        "tooltip": [
            alt.Tooltip("actual", title="true"),
            alt.Tooltip("predicted"),
            alt.Tooltip("images", format=","),
            alt.Tooltip("share", title="of the row", format=PERCENT),
        ],
    }
    # Opacity instead of a scale of colours: empty cells look like the page, light or dark.
    opacity = alt.Opacity("share", scale=alt.Scale(type="sqrt", domain=[0, strongest], range=[0, 1]), legend=None)
    wrong = alt.Chart(rows[~is_right]).mark_rect(color=colours(list(table["model"].unique()))[model])
    right = alt.Chart(rows[is_right]).mark_rect(color=GREY, opacity=0.35)
    layers = [wrong.encode(opacity=opacity, **encoding), right.encode(**encoding)]
    if numbers:
        shown = rows.assign(percent=(100 * rows["share"]).round(), dark=~is_right & (rows["share"] > strongest / 2))
        text = alt.Chart(shown[shown["share"] >= 0.005]).mark_text(fontSize=10)
        colour = alt.condition("datum.dark", alt.value("white"), alt.value("black"))
        layers.append(text.encode(text=alt.Text("percent", format="d"), color=colour, **encoding))
    return alt.layer(*layers).properties(height=190 + 22 * len(order))


def confused_pairs(table: pd.DataFrame) -> alt.VConcatChart:
    """The most confused pairs of classes of each model: pair, first_as_second, second_as_first (images), in order."""
    table = table.assign(total=table["first_as_second"] + table["second_as_first"])
    table["label"] = table["first_as_second"].astype(str) + " + " + table["second_as_first"].astype(str)
    scale = alt.Scale(domain=[0, 1.12 * max(1, table["total"].max())])
    title = "images: first as second (dark) + second as first (light)"
    panels = []
    for model, colour in colours(list(table["model"].unique())).items():
        y = alt.Y("pair", sort=None, title=None, axis=_names(300))
        base = alt.Chart(table[table["model"] == model], title=model).encode(y=y)
        total = base.mark_bar(color=colour, opacity=0.5).encode(x=alt.X("total", title=title, scale=scale))
        first = base.mark_bar(color=colour).encode(x=alt.X("first_as_second", title=title))
        text = base.mark_text(align="left", dx=4).encode(x="total", text="label")
        panels.append(alt.layer(total, first, text).properties(width=560, height=alt.Step(20)))
    return alt.vconcat(*panels)


def class_accuracy(table: pd.DataFrame) -> alt.HConcatChart:
    """Top-1 of each class, a dot for each model, hardest classes (by the mean of the models) first; class, top1."""
    order = table.groupby("class", sort=False)["top1"].mean().sort_values(kind="stable").index
    models = list(table["model"].unique())
    # Ever smaller: where models are equal, each can still be seen.
    size = alt.Size("model", scale=alt.Scale(domain=models, range=list(np.linspace(90, 25, len(models)))), legend=None)
    x = alt.X("top1", title="top-1 on test", axis=alt.Axis(format="%"), scale=_ZERO_TO_ONE)
    panels = []
    for title, classes in zip(("Harder half of the classes", "Easier half"), np.array_split(order, 2), strict=True):
        rows = table[table["class"].isin(classes)]
        y = alt.Y("class", sort=list(classes), title=None, axis=_names(200, grid=True))
        base = alt.Chart(rows).encode(y=y)
        span = base.mark_rule(color="#cccccc").encode(x=alt.X("min(top1):Q", title="top-1 on test"), x2="max(top1)")
        dots = base.mark_point(filled=True, opacity=1).encode(x=x, size=size, color=_colour(table))
        panels.append(alt.layer(span, dots).properties(title=title, width=330, height=alt.Step(14)))
    return alt.hconcat(*panels)


def study(table: pd.DataFrame, label: str, form: str, *, by_time: bool) -> alt.ConcatChart:
    """Top-1 against what was varied, a line through the means over seeds, and with `by_time` against minutes, too.

    table: columns model, value, val_top1 (share), minutes. label, form: of the first axis and its values, e.g. ".0%".
    """
    means = table.groupby(["model", "value"], sort=False)[["val_top1", "minutes"]].mean().reset_index()
    top1, values = (
        _share("val_top1", _ON_VALIDATION),
        alt.Axis(labelExpr=f"format(datum.value, '{form}')", labelAngle=0),
    )
    axes = [alt.X("value:O", title=label, axis=values)]
    if by_time:
        axes.append(alt.X("minutes", title=COSTS["minutes"]))
    return panels([_lines(means, x, top1, "value", []) for x in axes], columns=2, width=330, height=300)


def sweep(settings: pd.DataFrame, tried: Sequence[str]) -> Layers | alt.HConcatChart:
    """Top-1 against the parameters that were tried: a heat map of two, else a panel for each.

    settings: the tried ones as text, val_top1 (share). In a panel, grey: every setting; the line: the best of a value.
    """
    axes = [_ordinal(settings, name) for name in tried]
    chart = alt.Chart(settings.rename(columns=lambda name: name.replace(".", " ")))
    if len(tried) == 2:
        cells = chart.encode(alt.X(**axes[0]), alt.Y(**axes[1])).properties(width=alt.Step(70), height=alt.Step(45))
        colour = alt.Color("val_top1", legend=None, scale=alt.Scale(scheme="blues"))
        texts = cells.mark_text(fontWeight="bold").encode(alt.Text("val_top1", format=PERCENT))
        return alt.layer(cells.mark_rect(opacity=0.6).encode(colour), texts)
    top1 = _share("val_top1", _ON_VALIDATION)
    panels = []
    for axis in axes:
        panel = chart.encode(alt.X(**axis)).properties(width=200)
        best = panel.mark_line(point=True).encode(top1.aggregate("max"))
        panels.append(alt.layer(panel.mark_point(color=GREY).encode(top1), best))
    return alt.hconcat(*panels)


def _ordinal(settings: pd.DataFrame, name: str) -> dict[str, Any]:
    """An axis of a parameter's values: numbers by size, then other values as they come."""
    values = settings[name].drop_duplicates()
    sort = values.sort_values(key=lambda texts: pd.to_numeric(texts, errors="coerce"), kind="stable").tolist()
    axis = alt.Axis(labelAngle=-30)
    return {"field": name.replace(".", " "), "type": "ordinal", "sort": sort, "title": name, "axis": axis}


def _lines(table: pd.DataFrame, x: alt.X, y: alt.Y, order: str, tooltip: Sequence[alt.Tooltip]) -> alt.Chart:
    lines = alt.Chart(table).mark_line(point=alt.OverlayMarkDef(size=60), strokeWidth=2.5)
    encoded = lines.encode(x=x, y=y, color=_colour(table), opacity=_FADED, order=order, tooltip=tooltip)
    return encoded.add_params(_CHOSEN).properties(height=HEIGHT)


def _names(limit: int, **options: Any) -> alt.Axis:
    """An axis of names, each shown, up to `limit` pixels long."""
    return alt.Axis(**{"labelLimit": limit, "labelFlush": False, "labelOverlap": False, "ticks": False} | options)


def _share(column: str, title: str, scale: alt.Scale | None = None) -> alt.Y:
    return alt.Y(column, title=title, axis=alt.Axis(format="%"), scale=scale or alt.Scale(zero=False))


def _colour(table: pd.DataFrame) -> alt.Color:
    by_model = colours(list(table["model"].unique()))
    scale = alt.Scale(domain=list(by_model), range=list(by_model.values()))
    return alt.Color("model:N", scale=scale, legend=alt.Legend(title=None, orient="top", columns=2, labelLimit=150))
