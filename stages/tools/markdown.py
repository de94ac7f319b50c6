"""The reports of the tools: Markdown from the templates beside this file."""

from collections.abc import Collection
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(template: str, **values: Any) -> str:
    """The text of templates/TEMPLATE.md.j2."""
    folder = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=folder, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"median": median, "spread": spread, "form": lambda value, form: form.format(value)}
    return environment.get_template(f"{template}.md.j2").render(values)


def spread(values: Collection[float], form: str) -> str:
    """Median, lowest and highest of some values; form: of each, as in "{:.2f}"."""
    middle, low, high = (form.format(number) for number in (median(values), min(values), max(values)))
    return f"**{middle}** ({low} to {high})"
