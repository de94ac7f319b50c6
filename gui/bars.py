"""A bar chart that is text: readable at any width and by screen readers, in light and dark, drawn without a library."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any


def chart(rows: Iterable[Mapping[str, Any]]) -> str:
    """HTML of one bar per row of an answer, see gui.registry.Model.rows: class, superclass, probability in per cent."""
    return f'<ol class="answers">{"".join(map(_bar, rows))}</ol>'


def percent(share: float) -> str:
    """A share between 0 and 1 as people read it: 64.0 %, with a narrow space that does not break."""
    return f"{100 * share:.1f}\N{NARROW NO-BREAK SPACE}%"


def _bar(row: Mapping[str, Any]) -> str:
    return (
        f'<li><span>{escape(row["class"])} <span class="superclass">{escape(row["superclass"])}</span></span>'
        f'<span class="probability">{percent(row["probability"])}</span>'
        '<div class="track" aria-hidden="true">'
        f'<div class="bar" style="width: {row["probability"]:.1%}"></div></div></li>'
    )
