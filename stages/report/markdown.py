"""Markdown from templates: one environment for the reports of the pipeline and for those of the tools."""

from collections.abc import Collection
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stages.report.words import listed, points


def render(template: Path, **values: Any) -> str:
    """The text of a template, with one newline at its end; a value that is missing is an error."""
    loader = FileSystemLoader(template.parent)
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "f": format,
        "points": points,
        "listed": listed,
        "named": lambda name: name.replace("_", " "),
        "median": median,
        "spread": _spread,
    }
    return environment.get_template(template.name).render(values).strip() + "\n"


def _spread(values: Collection[float], spec: str) -> str:
    """Median, lowest and highest."""
    middle, low, high = (format(number, spec) for number in (median(values), min(values), max(values)))
    return f"**{middle}** ({low} to {high})"
