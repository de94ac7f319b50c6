"""What git holds of the results: the README says what the report says, and the report what was measured."""

import json
import re
import subprocess
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from stages.evaluation import ood, significance
from stages.report import adaptation, checks, render
from stages.report.candidate import Candidate

ROOT = Path(__file__).parents[2]
# What a figure with this unit is, as the files have it: times so much.
UNITS = {
    "%": (100,),
    "points": (100,),
    "minutes": (1, 1 / 60),
    "min": (1, 1 / 60),
    "seconds": (1, 60),
    "ms": (1,),
    "s": (1,),
    "/s": (1,),
    "times": (1,),
    "px": (1,),
    "MB": (1e-6, 1),
    "GiB": (1 / 1024, 1),
    "M": (1e-6,),
}
FIGURE = re.compile(
    rf"(?<![\w.,`])([-+]?\d[\d,]*(?:\.\d+)?) ?({'|'.join(sorted(UNITS, key=len, reverse=True))})(?![\w])"
)
# Of the method, not of a result: levels, shares and bounds that the code holds.
OF_THE_METHOD = (significance.LEVEL, ood.FALSE_ALARMS, *adaptation.LEVELS, adaptation.OF_FINAL, 0.90, 1.0)
OF_THE_METHOD = (*OF_THE_METHOD, checks.LAST_PART, checks.DUPLICATES)
TABLES = r"reports/(studies/.*|tables/summary)\.csv"  # those of every image or step hold any number


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
    assert render.claims(data, data["dataset"], figures) == committed("reports/claims.md")
    assert data["verdict"] in report
    assert data["verdict"].startswith(f"**Ship {registered['champion']}**")


def test_the_readme_shows_the_reports_own_table_and_what_stands_above_it(report):
    readme = committed("README.md")
    table = report[report.index("| model | val top-1") :].split("\n\n")[0]
    assert table in readme
    facts = report.partition("## What was compared")[2].partition("## Accuracy")[0]
    assert all(fact in readme for fact in facts.splitlines())


def numbers(content: Any) -> Iterator[float]:
    """All numbers of JSON, those within texts included, which have been rounded already."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from () if key in ("mistakes", "suspects", "confused_pairs") else numbers(value)
    elif isinstance(content, list):
        for value in content:
            yield from numbers(value)
    elif isinstance(content, (int, float)) and not isinstance(content, bool):
        yield float(content)


@pytest.fixture(scope="module")
def measured() -> tuple[set[float], str]:
    """All numbers of reports/, and all texts in its JSON, which hold some that were made of several numbers."""
    found, texts = set(OF_THE_METHOD), []
    for file in git("ls-tree", "-r", "--name-only", "HEAD", "reports/").split():
        if file.endswith(".json"):
            content = json.loads(committed(file))
            found |= set(numbers(content))
            if file == "reports/comparison.json":
                texts += [content["verdict"], *(check["text"] for check in content.get("checks", ()))]
        elif re.fullmatch(TABLES, file):
            for column in pd.read_csv(StringIO(committed(file))).select_dtypes("number"):
                found |= set(pd.read_csv(StringIO(committed(file)))[column].dropna())
    return found, "\n".join(texts)


def is_measured(figure: str, unit: str, found: set[float], texts: str) -> bool:
    digits = figure.lstrip("+-").replace(",", "")
    decimals = len(digits.partition(".")[2])
    rounded = {f"{abs(number * scale):.{decimals}f}" for number in found for scale in UNITS[unit]}
    return digits in rounded or bool(re.search(rf"(?<![\d.]){re.escape(figure.lstrip('+-'))} ?{unit}", texts))


@pytest.mark.parametrize("name", ["README.md", "reports/comparison.md", "reports/claims.md"])
def test_every_figure_stands_in_a_file_of_reports(name, measured):
    text = committed(name)
    if name == "README.md":
        text = text.partition("\n## Results\n")[2].partition("\n## ")[0]
    figures = FIGURE.findall(text)
    assert len(figures) > 15
    assert [f"{figure} {unit}" for figure, unit in figures if not is_measured(figure, unit, *measured)] == []
    caught = [not is_measured(other(figure), unit, *measured) for figure, unit in figures]
    assert sum(caught) > len(caught) / 4, "many a wrong figure is seen"  # short ones are those of something else


def other(figure: str) -> str:
    """Another figure of the same form."""
    return figure[:-1] + str((int(figure[-1]) + 3) % 10)
