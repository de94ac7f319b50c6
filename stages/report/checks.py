"""Numbered checks: what a reader should know before he trusts the comparison. docs/checks.md explains each code.

A check looks at facts that other stages resolved and says in a sentence what it found, or nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from stages.report.candidate import Candidate, budget_of, by_validation
from stages.report.words import listed, points

TEST_IMAGES = 50  # of a class: with fewer, the 95 % interval of its accuracy is up to 14 points wide to either side
CALIBRATION_IMAGES = 500  # to fit temperature and thresholds on
CALIBRATION_ERROR = 0.05  # after calibration
AUROC = 0.7  # of out-of-distribution detection; 0.5 is guessing
RISING = 0.02  # top-1 on validation, within the last part of a training
LAST_PART = 0.2
DUPLICATES = 0.01  # share of the test images
FEW_NAMES = 5  # of classes; more are counted


@dataclass(frozen=True)
class Facts:
    """candidates: in any order. comparison, dataset: as in comparison.json. classes, learning: of reports/tables."""

    candidates: Sequence[Candidate]
    comparison: Mapping[str, Any]
    dataset: Mapping[str, Any]
    classes: pd.DataFrame
    learning: pd.DataFrame


Texts = Iterator[str]
_CHECKS: list[tuple[str, str, Callable[[Facts], Iterable[str]]]] = []


def _check(code: str, title: str) -> Callable[[Callable[[Facts], Texts]], Callable[[Facts], Texts]]:
    def add(look: Callable[[Facts], Texts]) -> Callable[[Facts], Texts]:
        _CHECKS.append((code, title, look))
        return look

    return add


def titles() -> dict[str, str]:
    """By code."""
    return {code: title for code, title, _ in _CHECKS}


def fired(facts: Facts) -> list[dict[str, str]]:
    """code, title and text of each finding, in the order of codes: as comparison.json holds them."""
    return [{"code": code, "title": title, "text": text} for code, title, look in _CHECKS for text in look(facts)]


@_check("CHK001", "Generated images")
def _demo(facts: Facts) -> Texts:
    if facts.dataset["source"] == "demo":
        yield "The images are procedural drawings: the figures show that the pipeline works, nothing about photographs."


@_check("CHK002", "Random weights where pretrained ones are expected")
def _random_weights(facts: Facts) -> Texts:
    for c in facts.candidates:
        if "weights" in c.settings and not c.is_pretrained:
            yield f"{c.name} can start from pretrained weights but started from random ones."


@_check("CHK003", "One seed")
def _one_seed(facts: Facts) -> Texts:
    if single := [c.name for c in facts.candidates if len(c.seeds) == 1]:
        who = "all models" if len(single) == len(facts.candidates) else listed(single)
        yield f"Trained once (n = 1): {who}. No figure of theirs tells luck of the seed."


@_check("CHK004", "Few test images per class")
def _few_test_images(facts: Facts) -> Texts:
    per_class = facts.dataset["counts"]["test"] / len(facts.dataset["class_names"])
    if per_class < TEST_IMAGES:
        yield f"{per_class:g} test images per class in the mean: accuracies of single classes are rough."


@_check("CHK005", "Validation and test differ")
def _val_and_test(facts: Facts) -> Texts:
    for c in facts.candidates:
        found = c.metrics.get("val_minus_test")
        if found and (found["low"] > 0 or found["high"] < 0):
            yield (
                f"{c.name}: top-1 on validation is {points(found['difference'], '+.1f')} points from that on test "
                f"({points(found['low'], '+.1f')} to {points(found['high'], '+.1f')}): more than the choice of images "
                "explains."
            )


@_check("CHK006", "Near duplicates between training and test images")
def _near_duplicates(facts: Facts) -> Texts:
    found = facts.comparison.get("near_duplicates")
    if found and found["share"] > DUPLICATES:
        changes = [f"{name} {points(own['without'] - own['all'], '+.2f')}" for name, own in found["top1"].items()]
        yield (
            f"{found['images']:,} test images ({found['share']:.1%}) have a near duplicate among the training images; "
            f"without them top-1 changes by {', '.join(changes)} points."
        )


@_check("CHK007", "Probabilities are poorly calibrated")
def _calibration(facts: Facts) -> Texts:
    if (images := facts.dataset["counts"]["val"]) < CALIBRATION_IMAGES:
        yield f"Temperature and thresholds were fitted on {images:,} images only."
    for c in facts.candidates:
        if (error := c.test["ece_calibrated"]) > CALIBRATION_ERROR:
            yield f"{c.name} has an expected calibration error of {error:.1%} on test after calibration."


@_check("CHK008", "Out-of-distribution detection does not work")
def _ood(facts: Facts) -> Texts:
    for c in facts.candidates:
        if reason := c.metrics["ood"]["reason"]:
            yield f"{c.name} flags no image: {reason}."
        if poor := {kind: own["auroc"] for kind, own in c.metrics["ood"]["by_kind"].items() if own["auroc"] < AUROC}:
            areas = listed([f"{kind} (AUROC {area:.2f})" for kind, area in poor.items()])
            yield f"{c.name} does not tell {areas} from test images; 0.5 is guessing."


@_check("CHK009", "A class with no image right")
def _missed_classes(facts: Facts) -> Texts:
    for model, rows in facts.classes.groupby("model", sort=False):
        if missed := list(rows["class"][rows["top1"] == 0]):
            names = [str(name).replace("_", " ") for name in missed]
            is_short = len(names) <= FEW_NAMES
            which = listed(names) if is_short else f"{len(names)} classes, {listed(names[:3])} among them"
            yield f"{model} gets no test image right of {which}."


@_check("CHK010", "The ranking is not significant")
def _ranking(facts: Facts) -> Texts:
    best, *others = by_validation(facts.candidates)
    pairs = {frozenset((pair["first"], pair["second"])): pair for pair in facts.comparison["pairs"]}
    for other in others:
        pair = pairs[frozenset((best.name, other.name))]
        if not pair["is_significant"]:
            yield f"{best.name} and {other.name} do not differ significantly on test (p = {pair['adjusted']:.2g})."


@_check("CHK011", "Training had not converged")
def _not_converged(facts: Facts) -> Texts:
    for model, rows in facts.learning.groupby("model", sort=False):
        gains = [_last_gain(course) for _, course in rows.groupby("seed")]
        if (gain := sum(gains) / len(gains)) > RISING:
            yield (
                f"{model} still gained {points(gain)} points on validation in the last {LAST_PART:.0%} of its "
                "training: more epochs would give more."
            )


def _last_gain(course: pd.DataFrame) -> float:
    course = course.sort_values("images")
    before = course[course["images"] <= (1 - LAST_PART) * course["images"].max()]
    return float(course["val_top1"].iloc[-1] - before["val_top1"].iloc[-1]) if len(before) else 0.0


@_check("CHK012", "Models were not trained alike")
def _trained_alike(facts: Facts) -> Texts:
    for what, of_run in (
        ("precision", lambda run: run["resolved"]["precision"]),
        ("hardware", lambda run: f"{run['resolved']['device']}, {run['hardware']['cpu']}"),
        ("threads", lambda run: str(run["resolved"]["threads"])),
        ("budget", budget_of),
    ):
        by_model = {c.name: sorted({of_run(run) for run in c.runs or [c.run]}) for c in facts.candidates}
        if len({tuple(values) for values in by_model.values()}) > 1 or any(len(v) > 1 for v in by_model.values()):
            yield f"{what}: {'; '.join(f'{name} {listed(values)}' for name, values in by_model.items())}."


@_check("CHK013", "Uncommitted changes")
def _uncommitted(facts: Facts) -> Texts:
    dirty = [c.name for c in facts.candidates if any(_is_dirty(run) for run in c.runs or [c.run])]
    if dirty:
        yield f"{listed(dirty)} {_was(dirty)} trained by code that no commit holds."


def _is_dirty(run: Mapping[str, Any]) -> bool:
    return run.get("tags", {}).get("git_dirty") == "true"


@_check("CHK014", "No better than a trivial classifier")
def _trivial(facts: Facts) -> Texts:
    for name, baseline in facts.comparison.get("baselines", {}).items():
        if beaten := [c.name for c in facts.candidates if c.test["top1_low"] <= baseline["test"]["top1"]]:
            who, share = f"{listed(beaten)} {_was(beaten, 'is', 'are')}", baseline["test"]["top1"]
            yield f"{who} not clearly better than the {name} ({share:.1%} on test)."


def _was(items: Sequence[str], one: str = "was", several: str = "were") -> str:
    return one if len(items) == 1 else several
