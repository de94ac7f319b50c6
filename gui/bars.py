"""A bar chart that is text: readable at any width and by screen readers, in light and dark, drawn without a library."""

from collections.abc import Iterable
from html import escape

from gui.registry import Answer

# !important: Streamlit indents the lists of a page.
STYLE = """<style>
.answers { list-style: none; margin: 0; padding: 0 !important; }
.answers li { display: grid; grid-template-columns: 1fr auto; gap: 0.15rem 1rem;
              margin: 0 0 0.85rem !important; padding: 0 !important; }
.answers .superclass { opacity: 0.75; font-size: 0.875em; margin-left: 0.5em; }
.answers .probability { font-variant-numeric: tabular-nums; }
.answers .track { grid-column: 1 / -1; height: 0.6rem; border-radius: 0.3rem; overflow: hidden;
                  background: color-mix(in srgb, currentColor 14%, transparent); }
.answers .bar { height: 100%; min-width: 2px; border-radius: 0.3rem; background: #3f8fd2; opacity: 0.6; }
.answers li:first-child { font-size: 1.2rem; font-weight: 600; }
.answers li:first-child .superclass { font-weight: 400; }
.answers li:first-child .bar { opacity: 1; }
</style>"""


def chart(answers: Iterable[Answer]) -> str:
    """HTML of one bar per answer: class, superclass, probability in per cent."""
    return STYLE + f'<ol class="answers">{"".join(map(_row, answers))}</ol>'


def percent(share: float) -> str:
    """A share between 0 and 1 as people read it: 64.0 %, with a narrow space that does not break."""
    return f"{100 * share:.1f}\N{NARROW NO-BREAK SPACE}%"


def _row(answer: Answer) -> str:
    return (
        f"<li><span>{escape(answer.class_name)} "
        f'<span class="superclass">{escape(answer.superclass_name)}</span></span>'
        f'<span class="probability">{percent(answer.probability)}</span>'
        '<div class="track" aria-hidden="true">'
        f'<div class="bar" style="width: {answer.probability:.1%}"></div></div></li>'
    )
