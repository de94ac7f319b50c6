"""The reports in Markdown: templates filled with values that were computed before."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stages.data.corruptions import SEVERITIES
from stages.evaluation import calibration, ood, significance
from stages.report.candidate import Candidate, by_validation
from stages.report.charts import SMOOTHED
from stages.report.claims import POINTS, Claim
from stages.report.recommendation import recommend


def recommendation(candidates: Sequence[Candidate], comparison: Mapping[str, Any], dataset: Mapping[str, Any]) -> str:
    """Which model to ship and why: a paragraph of Markdown; arguments as of `comparison`."""
    ranked = by_validation(candidates)
    return _render("recommendation", dataset=dataset, recommendation=recommend(ranked, comparison["pairs"])).strip()


def comparison(
    candidates: Sequence[Candidate],
    comparison: Mapping[str, Any],
    dataset: Mapping[str, Any],
    figures: Collection[str],
) -> str:
    """reports/comparison.md.

    candidates: in any order. comparison: of comparison.json, at least what model_comparison.compare says,
    corrupted_images and int8. dataset: dataset.json. figures: names of the PNG files in plots/ beside the report,
    without their ending; those that a section knows appear there.
    """
    ranked = by_validation(candidates)
    return _render(
        "comparison",
        candidates=ranked,
        comparison=comparison,
        dataset=dataset,
        recommendation=recommend(ranked, comparison["pairs"]),
        figures=figures,
        bins=calibration.BINS,
        false_alarms=ood.FALSE_ALARMS,
        level=significance.LEVEL,
        resamples=significance.RESAMPLES,
        severities=len(SEVERITIES),
        smoothed=SMOOTHED,
    )


def claims(judged: Mapping[str, Claim], dataset: Mapping[str, Any]) -> str:
    """reports/claims.md."""
    return _render("claims", claims=judged, dataset=dataset, points=POINTS)


def _render(template: str, **values: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "f": format,
        "points": _points,
        "listed": _listed,
        "named": lambda name: name.replace("_", " "),
    }
    return environment.get_template(f"{template}.md.j2").render(values).strip() + "\n"


def _points(share: float, spec: str = ".1f") -> str:
    return format(100 * share, spec)


def _listed(items: Sequence[str]) -> str:
    """As a sentence has it: a, b and c."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
