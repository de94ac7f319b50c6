"""The figures of `make sweep` and `make study`."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

ANGLED, PERCENT = alt.Axis(labelAngle=-30), alt.Axis(format=".1~%")
TOP1 = "top-1 on validation"


def sweep(settings: pd.DataFrame, tried: Sequence[str], title: str) -> Any:
    """Altair's chart of top-1 against the parameters that were tried: a heat map of two, else a panel for each.

    settings: the tried ones as text, val_top1 (share). In a panel, grey: every setting; the line: the best of a value.
    """
    axes = [_axis(settings, name) for name in tried]
    chart = alt.Chart(settings.rename(columns=lambda name: name.replace(".", " ")))
    if len(tried) == 2:
        cells = chart.encode(alt.X(**axes[0]), alt.Y(**axes[1])).properties(width=alt.Step(70), height=alt.Step(45))
        color = alt.Color("val_top1", legend=None, scale=alt.Scale(scheme="blues"))
        texts = cells.mark_text(fontWeight="bold").encode(alt.Text("val_top1", format=".1%"))
        return (cells.mark_rect(opacity=0.6).encode(color) + texts).properties(title=title)
    top1 = alt.Y("val_top1", title=TOP1, axis=PERCENT, scale=alt.Scale(zero=False))
    panels = []
    for axis in axes:
        panel = chart.encode(alt.X(**axis)).properties(width=200)
        best = panel.mark_line(point=True).encode(top1.aggregate("max"))
        panels.append(panel.mark_point(color="grey").encode(top1) + best)
    return alt.hconcat(*panels).properties(title=title)


def study(table: pd.DataFrame, label: str, form: str, *, by_time: bool) -> Any:
    """Altair's chart of top-1 against what was varied, a line a model, and with `by_time` against minutes, too.

    table: columns model, value, val_top1 (share), minutes. label, form: of the first axis and its values, e.g. ".0%".
    """
    top1 = alt.Y("val_top1", title=TOP1, axis=PERCENT)
    lines = alt.Chart(table).mark_line(point=True).encode(top1, alt.Color("model", sort=None, title=None))
    values = alt.Axis(labelExpr=f"format(datum.value, '{form}')", labelAngle=0)
    panels = [lines.encode(alt.X("value:O", title=label, axis=values)).properties(width=250)]
    if by_time:
        panels.append(lines.encode(alt.X("minutes", title="minutes of training"), alt.Order("value")))
    return alt.hconcat(*panels)


def _axis(settings: pd.DataFrame, name: str) -> dict[str, Any]:
    """An ordinal axis: numbers by size, then other values as they come."""
    values = settings[name].drop_duplicates()
    sort = values.sort_values(key=lambda texts: pd.to_numeric(texts, errors="coerce"), kind="stable").tolist()
    return {"field": name.replace(".", " "), "type": "ordinal", "sort": sort, "title": name, "axis": ANGLED}
