"""The reports in Markdown: templates filled with values that were computed before."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.data.corruptions import SEVERITIES
from stages.evaluation import baselines, calibration, ood, significance
from stages.report import markdown
from stages.report.adaptation import AXES, OF_FINAL
from stages.report.candidate import Candidate, by_validation
from stages.report.charts import SMOOTHED
from stages.report.recommendation import recommend


def recommendation(candidates: Sequence[Candidate], comparison: Mapping[str, Any], dataset: Mapping[str, Any]) -> str:
    """Which model to ship and why: a paragraph of Markdown; arguments as of `comparison`."""
    ranked = by_validation(candidates)
    found = recommend(ranked, comparison["pairs"])
    return _render("recommendation", dataset=dataset, recommendation=found, several=_several(candidates)).strip()


def comparison(
    candidates: Sequence[Candidate],
    comparison: Mapping[str, Any],
    dataset: Mapping[str, Any],
    figures: Collection[str],
) -> str:
    """reports/comparison.md.

    candidates: in any order. comparison: of comparison.json, at least what model_comparison.compare says,
    corrupted_images and int8; also checks, baselines and equal_minutes where they are. dataset: dataset.json.
    figures: names of the PNG files in plots/ beside the report, without their ending; those that a section knows
    appear there.
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
        several=_several(candidates),
        severities=len(SEVERITIES),
        side=baselines.SIDE,
        smoothed=SMOOTHED,
    )


def claims(comparison: Mapping[str, Any], dataset: Mapping[str, Any], figures: Collection[str]) -> str:
    """reports/claims.md; comparison: of comparison.json, at least claims and studies. Others as of `comparison`."""
    own = {"dataset": dataset, "figures": figures, "axes": AXES, "of_final": OF_FINAL}
    return _render("claims", **{**comparison, **own})


def _several(candidates: Sequence[Candidate]) -> bool:
    return any(len(candidate.seeds) > 1 for candidate in candidates)


def _render(template: str, **values: Any) -> str:
    return markdown.render(Path(__file__).parent / "templates" / f"{template}.md.j2", **values)
