"""What git holds of the results: the README says what the report says, and the report what was measured."""

import json
import subprocess
from pathlib import Path

import pytest

from stages.report import render
from stages.report.candidate import Candidate

ROOT = Path(__file__).parents[2]


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def committed(file: str) -> str:
    """A file as the last commit has it: what somebody tries out in the working tree is their own affair."""
    return git("show", f"HEAD:{file}")


def table(text: str) -> list[str]:
    [start] = [index for index, line in enumerate(text.splitlines()) if line.startswith("| model | val top-1")]
    lines = text.splitlines()[start:]
    return lines[: lines.index("")]


@pytest.fixture(scope="module")
def report() -> str:
    return committed("reports/comparison.md")


def test_the_readme_shows_the_reports_own_table(report):
    assert table(committed("README.md")) == table(report)


def test_the_table_shows_the_metrics_as_they_were_measured(report):
    rows = {cells[1]: cells for cells in ([cell.strip() for cell in row.split("|")] for row in table(report)[2:])}
    champion = json.loads(committed("reports/registered_model.json"))["champion"]
    assert next(iter(rows)) == champion
    for model, cells in rows.items():
        metrics = json.loads(committed(f"reports/metrics/{model}.json"))
        assert cells[2:4] == [
            f"{metrics['val']['top1']:.2%}",
            f"**{metrics['test']['top1']:.2%}** "
            f"({100 * metrics['test']['top1_low']:.2f} to {100 * metrics['test']['top1_high']:.2f})",
        ]
        assert cells[5] == f"{metrics['test']['top5']:.2%}"


def test_the_report_can_be_written_again_from_the_committed_figures_alone(report):
    data = json.loads(committed("reports/comparison.json"))
    robustness = json.loads(committed("reports/robustness.json"))
    candidates = [
        Candidate(
            name,
            json.loads(committed(f"reports/metrics/{name}.json")),
            facts["cost"],
            facts["training"],
            robustness[name],
        )
        for name, facts in data["facts"].items()
    ]
    figures = [Path(file).stem for file in git("ls-tree", "--name-only", "HEAD", "reports/plots/").split()]
    assert render.comparison(candidates, data, data["dataset"], figures) == report
    assert data["verdict"] in report


def test_what_stands_above_the_readmes_table_names_data_weights_and_machine(report):
    above = report[: report.index("## Accuracy")]
    said = committed("README.md")
    for fact in above[above.index("## What was compared") :].splitlines()[2:]:
        if fact:
            assert fact in said
