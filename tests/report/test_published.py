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


@pytest.fixture(scope="module")
def report() -> str:
    return committed("reports/comparison.md")


def test_the_report_can_be_written_again_from_the_committed_figures_alone(report):
    data, robustness, registered = (
        json.loads(committed(f"reports/{name}.json")) for name in ("comparison", "robustness", "registered_model")
    )
    candidates = []
    for name, facts in data["facts"].items():
        metrics = json.loads(committed(f"reports/metrics/{name}.json"))
        candidates.append(Candidate(name, metrics, facts["cost"], facts["training"], robustness[name]))
    figures = [Path(file).stem for file in git("ls-tree", "--name-only", "HEAD", "reports/plots/").split()]
    assert render.comparison(candidates, data, data["dataset"], figures) == report
    assert data["verdict"] in report
    assert data["verdict"].startswith(f"**Ship {registered['champion']}**")


def test_the_readme_shows_the_reports_own_table_and_what_stands_above_it(report):
    readme = committed("README.md")
    table = report[report.index("| model | val top-1") :].split("\n\n")[0]
    assert table in readme
    facts = report.partition("## What was compared")[2].partition("## Accuracy")[0]
    assert all(fact in readme for fact in facts.splitlines())
