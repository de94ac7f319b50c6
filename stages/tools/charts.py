"""The figures of `make sweep` and `make study`."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

PERCENT = alt.Axis(format=".1~%")
TOP1 = "top-1 on validation"


def sweep(settings: pd.DataFrame, tried: Sequence[str], title: str) -> alt.TopLevelMixin:
    """Top-1 against the parameters that were tried, columns of text: a heat map of two, else a panel for each.

    settings: also val_top1 (share). In a panel, grey: every setting; the line: the best with each value.
    """
    axes = [_axis(settings, name) for name in tried]
    chart = alt.Chart(settings.rename(columns=lambda name: name.replace(".", " ")))
    top1 = alt.Y("val_top1", title=TOP1, axis=PERCENT, scale=alt.Scale(zero=False))
    if len(tried) == 2:
        cells = chart.encode(alt.X(**axes[0]), alt.Y(**axes[1]))
        color = alt.Color("val_top1", title=None, legend=alt.Legend(format=".1~%"), scale=alt.Scale(scheme="blues"))
        text = cells.mark_text(fontWeight="bold", stroke="white", strokeWidth=0.3).encode(
            alt.Text("val_top1", format=".1%")
        )
        figure = (cells.mark_rect().encode(color) + text).properties(width=alt.Step(70), height=alt.Step(45))
    else:
        panels = []
        for axis in axes:
            best = chart.mark_line(point=True).encode(alt.X(**axis), top1.aggregate("max"))
            panels.append(chart.mark_point(color="grey").encode(alt.X(**axis), top1) + best)
        figure = alt.hconcat(*panels)
    return figure.properties(title=title)


def study(table: pd.DataFrame, label: str, form: str, *, by_time: bool) -> alt.TopLevelMixin:
    """Top-1 against what was varied, one line a model, and with `by_time` against minutes of training.

    table: columns model, value, val_top1 (share), minutes. label, form: of the first axis and its values, e.g. ".0%".
    """
    top1 = alt.Y("val_top1", title=TOP1, axis=PERCENT)
    lines = alt.Chart(table).mark_line(point=True).encode(top1, alt.Color("model", sort=None, title=None))
    values = alt.Axis(labelExpr=f"format(datum.value, '{form}')", labelAngle=0)
    panels = [lines.encode(alt.X("value:O", title=label, axis=values)).properties(width=250)]
    if by_time:
        panels.append(lines.encode(alt.X("minutes", title="minutes of training"), alt.Order("value")))
    return alt.hconcat(*panels)


def _axis(settings: pd.DataFrame, name: str) -> dict[str, object]:
    """An ordinal axis: numbers by size, then other values as they come."""
    values = settings[name].drop_duplicates()
    order = pd.to_numeric(values, errors="coerce").sort_values(kind="stable").index
    return {"field": name.replace(".", " "), "type": "ordinal", "sort": list(values[order]), "title": name}
