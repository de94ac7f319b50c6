"""The comparison as text: its structure, and every figure of a model in the row of its table."""

import pytest

from stages.report import render
from stages.report.candidate import summary

from .conftest import DATASET, candidate, compared

INT8 = {
    **{"method": "static", "n": 5000, "difference": -0.002, "low": -0.0052, "high": 0.0012, "p_value": 0.25},
    "float32": {"top1": 0.8, "nll": 0.7, "ece": 0.1, "latency_p50_ms": 2.5, "throughput_images_per_second": 500.0},
    "int8": {"top1": 0.798, "nll": 0.71, "ece": 0.11, "latency_p50_ms": 1.25, "throughput_images_per_second": 1e3},
    "reason": "float32 is served: int8 may lose more",
}
INT8["float32"]["bytes"], INT8["int8"]["bytes"] = 22_100_000, 5_800_000


def report(*candidates, figures=(), int8=None, **changes):
    comparison = compared(*candidates) | ({"int8": int8} if int8 else {})
    return render.comparison(candidates, comparison, DATASET | changes, figures)


def tables(text):
    """The tables of a report: by heading, by the first cell of a row, the other cells."""
    found, heading = {}, ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("| ") and not line.startswith("| ---"):
            first, *cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
            found.setdefault(heading, {})[first] = cells
    return found


def test_the_report_of_two_models_has_its_sections_and_every_figure_in_its_row():
    first = candidate("a", val=0.55, test=0.7, latency=7.5)
    text = report(
        candidate("b", val=0.1, test=0.6), first, figures=["top1", "superclass_confusion_b"], int8={"b": INT8}
    )
    assert [line for line in text.splitlines() if line.startswith(("#", "!"))] == [
        *("# Model comparison on cifar100", "## Recommendation", "## What was compared", "## Accuracy"),
        *("![Top-1 accuracy on test](plots/top1.png)", "### Statistical significance", "## Cost", "### int8"),
        *("## Calibration", "### Prediction sets (conformal, 90 % and 95 %)", "## Corrupted images"),
        *("### Out-of-distribution images", "## Errors"),
        *("![Superclasses confused by b](plots/superclass_confusion_b.png)", "## Method and limits"),
    ]
    rows = tables(text)
    assert list(rows["Accuracy"]) == ["model", "a", "b"], "sorted by validation"
    assert {heading: found["a"] for heading, found in rows.items() if "a" in found} == {
        "Accuracy": ["55.00%", "**70.00%** (69.00 to 71.00)", "1", "90.00%", "80.00%", "40.00%", "0.500"],
        "Cost": ["10.0 min", "2.0 GiB", "7.5 ms", "15.0 ms", "250 /s", "3.5 s", "1.50 M", "100 M", "10.0 MB"],
        "Calibration": ["1.234", "1.200 → 1.100", "10.00% → 2.00%", "0.600 → 0.500"],
        "Prediction sets (conformal, 90 % and 95 %)": [
            "90.3% coverage, 2.5 classes",
            "95.1% coverage, 4.5 classes",
        ],
        "Corrupted images": ["70.0%", "32.1%", "22.2%"],
        "Out-of-distribution images": ["energy", "0.170", "5.2%", "0.987 (0.980 to 0.990), 77.0%"],
    }
    assert rows["Statistical significance"]["a - b"][1:] == ["100", "0", "< 0.000001", "significant"]
    assert rows["int8"]["b"] == [
        *("static", "80.00% → 79.80%", "-0.20 (-0.52 to +0.12)", "0.25", "0.700 → 0.710", "10.00% → 11.00%"),
        *("2.50 → 1.25", "500 → 1,000", "22.1 → 5.8"),
    ]
    for found in rows.values():
        assert "model" not in found or len({len(cells) for cells in found.values()}) == 1
    for fact in (
        "45,000 training images, 5,000 validation images, 2,500 gate images, 10,000 test images, content sha256 `dddd",
        "vit_tiny at 128 px, random initial weights, all layers, 1 epoch in 10.0 minutes on Some CPU, 2 threads, float",
        "All models misclassify 300 of 1,000 images (30.0%); for 300 of them all predict the same other class",
        "same prediction for the same image: b and a 90.0%.",
        "against a alone, at the cost of running all; for 70.00% at least one model is right",
        "Most confused by a: class",
        "mean of 3 severities",
        "(n = 1; seed 0)",
        "on the CPU, Some CPU, 2 threads, 16.0 GiB, Linux x86_64;",
        "- Versions: torch 2.0.",
        "`weights: w.h5`",
    ):
        assert fact in text


def test_one_model_that_is_always_right_is_a_comparison_too():
    text = report(candidate("only", test=1.0), source="demo", limit_per_class=20)
    assert "There is only one model." in text
    assert "misclassify 0 of 1,000 images (0.0%)" in text
    assert "Most confused by only: none." in text
    assert "limited to 20 images per class" in text
    assert text.index("Generated images") < text.index("Ship only")
    assert "notebooks" not in text
    assert "int8" not in text


def test_what_differs_between_the_models_is_told_of_each():
    here, there = candidate("here"), candidate("there", weights="file")
    there.run["params"] |= {"seed": 7, "train_fraction": 0.05}
    there.run["resolved"] |= {"device": "cuda", "threads": 1}
    there.profile["hardware"]["cpu"], there.profile["precision"] = "Another CPU", "int8"
    text = report(here, there, candidate("hub", weights="pretrained"))
    assert [cells[2] for cells in tables(text)["Accuracy"].values()] == ["rank", "1", "1", "1"]
    assert tables(text)["Statistical significance"]["here - hub"][3:] == ["1", "not significant"]
    assert "here and hub: seed 0; there: seed 7" in text
    assert "there: Another CPU, 2 threads, 16.0 GiB, Linux x86_64; here and hub: Some CPU, 2 threads" in text
    assert "here and hub: float32; there: int8, as served" in text
    assert (
        "pretrained weights `w.h5` (sha256 `eeeeeeeeeeeeeeee`), all layers, 1 epoch on 5% of the training images in"
        in text
    )
    assert "on cuda (Some CPU, 1 thread), float32" in text
    assert "pretrained weights from the hub" in text


@pytest.mark.parametrize("source", ["/me/cifar.tar.xz", "file:///me/cifar.tar.xz", "https://me:pw@x.org/a.gz"])
def test_what_is_published_names_no_path_and_no_password(source):
    one = candidate("a", weights="file")
    one.run["dataset"]["source"] = source
    assert one.origin in ("cifar.tar.xz", "https://x.org/a.gz")
    assert one.published["params"]["weights"] == "w.h5"
    assert not any(secret in str(one.published) for secret in ("/me", "me:", "pw"))


@pytest.mark.parametrize(
    ("params", "network"),
    [({}, ""), ({"variant": "small", "image_size": 224}, "MobileNetV3 small at 224 px")],
)
def test_the_network_is_named_as_far_as_its_settings_do(params, network):
    one = candidate("a")
    one.run["params"] = params
    assert one.network == network


def test_the_summary_holds_shares_and_costs():
    [row] = summary([candidate("a", latency=7.5)]).to_dict("records")
    shares = {"top1": 0.5, "low": 0.49, "high": 0.51, "superclass_top1": 0.8, "ece": 0.02}
    assert row == {"model": "a", **shares, "milliseconds": 7.5, "minutes": 10.0, "megabytes": 10.0}


def test_several_seeds_are_told_one_by_one_with_their_mean_and_spread():
    text = report(candidate("a", 0.8, 0.8, spread=0.01), candidate("b", 0.7, 0.7, spread=0.02))
    rows = tables(text)
    assert rows["Accuracy"]["a"][2] == "79.00% ± 1.00"
    assert rows["Seeds"]["b"] == ["0", *["70.00%, 68.00%, 66.00%", "68.00% ± 2.00"] * 2]
    assert "Seeds: n = 3." in text
    assert "Seeds 0, 1 and 2, each a training of its own" in text
    assert "trained once" not in text
    assert "In the mean over seeds, on the same test images, it is 10.0 points ahead of b" in text
    one = report(candidate("a", 0.8, 0.8), candidate("b", 0.7, 0.7))
    assert "Seeds" not in tables(one)
    assert "(n = 1; seed 0)" in one


def test_the_budget_is_what_was_given_and_never_called_the_same_cost():
    one, two, head = candidate("one"), candidate("two", 0.4), candidate("head", 0.3, weights="file")
    head.run["params"]["finetune"] = "head"
    text = report(one, two)
    assert "- Budget: 1 epoch each. Minutes, computation and pixels: one 10.0 minutes, 100 M multiply-adds" in text
    assert "one and two: 1 epoch each; head: 1 pass each" in report(one, two, head)
    assert "a head on the features of 1 pass in 10.0 minutes" in report(one, two, head)
    for each in (one, two):
        each.run["budget"], each.run["epochs"] = {"kind": "minutes", "amount": 11.0}, 2.345
    assert "- Budget: 11 minutes each." in report(one, two)
    assert "all layers, 2.345 epochs in 10.0 minutes" in report(one, two)


def test_what_is_known_beside_the_models_is_told_and_left_out_where_it_is_not():
    models = candidate("a", 0.8, 0.8), candidate("b", 0.7, 0.7)
    share = {"top1": 0.1827, "top1_low": 0.1752, "top1_high": 0.1903}
    more = {
        "baselines": {"linear model on pixels": {"val": share, "test": share}},
        "equal_minutes": [{"minutes": 4, "models": {"a": {"top1": 0.75, "images": 12_345.0}, "b": None}}],
        "near_duplicates": {
            **{"images": 901, "share": 0.0901, "threshold": 0.9},
            "top1": {"a": {"all": 0.8, "without": 0.79, "low": 0.78, "high": 0.81}},
        },
    }
    text = render.comparison(models, compared(*models) | more, DATASET, [])
    rows = tables(text)
    assert rows["Accuracy"]["linear model on pixels"][:2] == ["18.27%", "18.27% (17.52 to 19.03)"]
    assert rows["What would you get for the same minutes?"]["4"] == ["75.0%, 12,345 images", "-"]
    assert "901 test images (9.0%) have a near duplicate" in text
    assert "a 79.00% (78.00 to 81.00)" in text
    plain = report(*models)
    assert not any(word in plain for word in ("linear", "same minutes", "near duplicate", "## Checks"))
