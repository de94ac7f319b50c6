"""The numbered checks: each fires on the fact that it is about, and only then; each is explained."""

import re
from pathlib import Path

import pandas as pd
import pytest

from stages.report import checks, render

from .conftest import DATASET, candidate, compared

CLASSES = pd.DataFrame({"model": ["a", "b"], "class": ["red_apple", "red_apple"], "top1": [0.1, 0.2]})
DOCS = Path(__file__).parents[2] / "docs" / "checks.md"


def course(*gains, model="a"):
    """Top-1 at tenths of a training, the last of them rising by `gains`."""
    top1 = [0.5] * (10 - len(gains)) + [0.5 + sum(gains[: place + 1]) for place in range(len(gains))]
    return pd.DataFrame({"model": model, "seed": 0, "images": range(100, 1100, 100), "val_top1": top1})


def facts(*candidates, dataset=(), classes=CLASSES, learning=None, **comparison):
    candidates = candidates or (good("a", 0.9), good("b", 0.7))
    learning = course() if learning is None else learning
    found = compared(*candidates) | comparison
    return checks.Facts(candidates, found, {**DATASET, **dict(dataset)}, classes, learning)


def good(name, test=0.8, **changes):
    """A model that no check has anything to say of."""
    return candidate(name, val=test, test=test, **{"weights": "file", "spread": 0.001} | changes)


def changed(path, value):
    """A good one but for one fact; path: attribute and keys."""
    one = good("a")
    place, *keys, last = path.split(".")
    place = getattr(one, place)
    for key in keys:
        place = place[key]
    place[last] = value
    return one


def codes(*candidates, **changes):
    return [found["code"] for found in checks.fired(facts(*candidates, **changes))]


def test_no_check_fires_without_a_reason():
    assert codes() == []
    assert codes(good("only")) == []


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("CHK001", {"dataset": {"source": "demo"}}),
        ("CHK004", {"dataset": {"counts": {"test": 4_900, "val": 5_000}}}),
        ("CHK007", {"dataset": {"counts": {"test": 10_000, "val": 499}}}),
        ("CHK006", {"near_duplicates": {"images": 101, "share": 0.0101, "top1": {"a": {"all": 0.8, "without": 0.79}}}}),
        ("CHK009", {"classes": CLASSES.assign(top1=[0.0, 0.2])}),
        ("CHK011", {"learning": course(0.011, 0.011)}),
        ("CHK014", {"baselines": {"chance": {"test": {"top1": 0.7}}}}),
    ],
)
def test_a_check_fires_on_the_data(code, changes):
    assert codes(**changes) == [code]


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": {"counts": {"test": 5_000, "val": 500}}},
        {"near_duplicates": {"images": 100, "share": 0.01, "top1": {}}},
        {"learning": course(0.009, 0.009)},
        {"learning": course(0.2, 0.0, 0.0)},
        {"learning": course().iloc[:0]},
        {"baselines": {"chance": {"test": {"top1": 0.5}}}},
    ],
)
def test_a_check_does_not_fire_at_its_bound(changes):
    assert codes(**changes) == []


@pytest.mark.parametrize(
    ("code", "candidates"),
    [
        ("CHK012", [changed("run.budget", {"kind": "minutes", "amount": 4}), good("b", 0.7)]),
        ("CHK002", [good("a", weights="random")]),
        ("CHK003", [good("a"), good("b", 0.7, spread=None)]),
        ("CHK005", [changed("metrics.val_minus_test", {"difference": 0.03, "low": 0.01, "high": 0.05})]),
        ("CHK005", [changed("metrics.val_minus_test", {"difference": -0.03, "low": -0.05, "high": -0.01})]),
        ("CHK007", [changed("metrics.test.ece_calibrated", 0.051)]),
        ("CHK008", [changed("metrics.ood.by_kind.digits.auroc", 0.69)]),
        ("CHK008", [changed("metrics.ood.reason", "AUROC 0.43 on far images")]),
        ("CHK010", [good("a", 0.8), good("b", 0.799)]),
        ("CHK012", [changed("run.resolved.precision", "bfloat16"), good("b", 0.7)]),
        ("CHK012", [changed("run.hardware.cpu", "Another"), good("b", 0.7)]),
        ("CHK012", [changed("run.epochs", 3), good("b", 0.7)]),
        ("CHK013", [changed("run.tags", {"git_dirty": "true"})]),
    ],
)
def test_a_check_fires_on_a_model(code, candidates):
    assert codes(*candidates) == [code]


@pytest.mark.parametrize(
    "one",
    [
        changed("metrics.val_minus_test", {"difference": 0.02, "low": -0.01, "high": 0.05}),
        changed("metrics.test.ece_calibrated", 0.05),
        changed("metrics.ood.by_kind.digits.auroc", 0.7),
        changed("run.tags", {"git_dirty": "false"}),
    ],
)
def test_a_check_leaves_a_model_in_peace(one):
    assert codes(one) == []


def test_a_model_from_scratch_is_expected_to_have_random_weights():
    scratch = good("a", weights="random")
    del scratch.run["params"]["weights"]
    assert codes(scratch) == []


def test_findings_name_models_classes_and_figures():
    one, two = changed("metrics.ood.by_kind.digits.auroc", 0.456), good("b", 0.799)
    found = {each["code"]: each["text"] for each in checks.fired(facts(one, two, classes=CLASSES.assign(top1=[0, 1])))}
    assert "digits (AUROC 0.46)" in found["CHK008"]
    assert found["CHK009"] == "a gets no test image right of red apple."
    assert re.search(r"a and b .* \(p = 1\)", found["CHK010"])


def test_the_report_opens_with_what_fired_and_each_check_is_explained():
    given = facts(dataset={"source": "demo"})
    text = render.comparison(given.candidates, given.comparison | {"checks": checks.fired(given)}, given.dataset, [])
    assert text.index("CHK001") < text.index("Ship")
    headings = re.findall(r"^## (CHK\d+): (.*)$", DOCS.read_text(), re.MULTILINE)
    assert dict(headings) == checks.titles()
    assert [code for code, _ in headings] == [f"CHK{number:03}" for number in range(1, len(headings) + 1)]
    anchors = {"".join(c for c in f"{code} {title}".lower().replace(" ", "-")) for code, title in headings}
    assert set(re.findall(r"docs/checks\.md#([\w-]+)", text)) <= anchors
    assert DOCS.read_text().count("- Found: ") == DOCS.read_text().count("- Why it matters: ") == len(headings)
