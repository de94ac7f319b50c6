"""The text of the comparison."""

import re

import pytest

from stages.report.candidate import by_validation
from stages.report.comparison import render
from stages.report.verdict import verdict


@pytest.fixture
def said(dataset, findings):
    def make(*candidates):
        return verdict(by_validation(candidates), findings(*candidates), dataset)

    return make


def row_of(text: str, heading: str, model: str) -> list[str]:
    """The cells of a model in the first table under a heading."""
    section = text[text.index(heading) :]
    [line] = [
        line for line in section[: section.index("\n\n", section.index("| --"))].splitlines() if f"| {model} |" in line
    ]
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_the_best_on_validation_is_to_be_shipped_even_where_another_is_better_on_test(candidate, said):
    text = said(candidate("b", val=0.6, test=0.7), candidate("a", val=0.61, test=0.6))
    assert text.startswith("**Ship a**")
    assert "60.0% of 10,000 test pictures (95 % interval 59.0% to 61.0%; chosen for its 61.0% on 5,000" in text
    assert "it is 10.0 points behind b (" in text


def test_the_verdict_has_three_sentences(candidate, said):
    best = candidate("best", val=0.8, test=0.8, latency=20, size=40_000_000, seconds=1200)
    small = candidate("small", val=0.6, test=0.6, latency=10, size=10_000_000, seconds=1200)
    text = said(best, small, candidate("slow", val=0.5, test=0.5, latency=40, size=40_000_000, seconds=1200))
    assert len(re.findall(r"\.(?: |$)", text)) == 3
    assert "it is 20.0 points ahead of small (17.6 to 22.5) and 30.0 points ahead of slow (" in text
    assert text.endswith("Unless you need less: small is 2.0 times as fast on one picture and 4.0 times as small.")


def test_where_nothing_speaks_for_another_model_that_is_said(candidate, said):
    text = said(candidate("best", val=0.8, test=0.8), candidate("other", val=0.5, test=0.5, latency=9))
    assert text.endswith("Neither is other clearly faster, smaller or quicker to train.")


def test_models_that_cannot_be_told_apart_are_called_so(candidate, said, report):
    one, other = candidate("one", val=0.52, test=0.500), candidate("other", val=0.51, test=0.502)
    assert "it is not distinguishable from other (p = 0.5)" in said(one, other)
    text = report(one, other)
    assert "| other - one | 0.20 (0.00 to 0.50) | 2 | 0 | 0.5 | not distinguishable |" in text
    assert row_of(text, "## Accuracy", "one")[2] == row_of(text, "## Accuracy", "other")[2] == "1"


def test_of_equals_the_first_is_shipped(candidate, said):
    assert "**Ship z**" in said(candidate("z", val=0.5), candidate("a", val=0.5))


def test_one_model_is_enough(candidate, said, report):
    assert said(candidate("only")).startswith("**Ship only**")
    assert "There is only one model." in report(candidate("only"))


def test_the_table_is_ranked_by_validation(candidate, report):
    text = report(*(candidate(name, val=val) for name, val in (("low", 0.1), ("high", 0.9), ("mid", 0.5))))
    section = text[text.index("## Accuracy") : text.index("### Is it luck?")]
    assert [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")] == [
        "model",
        "---",
        "high",
        "mid",
        "low",
    ]


def test_every_figure_of_a_model_stands_in_its_table(candidate, report):
    text = report(candidate("a", val=0.55, test=0.5, latency=7.5), candidate("b", val=0.1, test=0.1))
    assert row_of(text, "## Accuracy", "a")[:2] == ["55.00%", "**50.00%** (49.00 to 51.00)"]
    assert row_of(text, "## Cost", "a") == [
        *("10.0 min", "2.0 GiB", "7.5 ms", "15.0 ms", "250 /s", "3.5 s", "1.50 M", "100 M", "10.0 MB")
    ]
    assert row_of(text, "## Can its", "a") == ["1.234", "1.200 → 1.100", "10.00% → 2.00%", "0.600 → 0.500"]
    assert row_of(text, "### Sets", "a") == ["90.3% with 2.5 classes", "95.1% with 4.5 classes"]
    assert row_of(text, "## When pictures", "a") == ["50.0%", "32.1%", "22.2%"]
    assert row_of(text, "### When they", "a") == ["0.170", "5.2%", "77.0% (0.987)"]


def test_errors_agreement_and_the_mean_of_the_models_are_told(candidate, report):
    text = report(candidate("a", test=0.7), candidate("b", test=0.6))
    assert "All models miss 300 of 1,000 pictures (30.0%); for 300 of them all name the same other class" in text
    assert "a and b 90.0%" in text
    assert "for 70.00% at least one model is right" in text
    assert "Most confused by a: class" in text


def test_pictures_appear_where_they_were_drawn(candidate, report):
    text = report(candidate("a"), pictures=["top1", "superclass_confusion_a"])
    assert re.findall(r"\((plots/.*?)\)", text) == ["plots/top1.png", "plots/superclass_confusion_a.png"]


def test_what_differs_between_the_models_is_told_of_each(candidate, report):
    here, there = candidate("here"), candidate("there")
    there.run["params"]["seed"] = 7
    there.profile["hardware"]["cpu"] = "Another CPU"
    text = report(here, there)
    assert "here: seed 0; there: seed 7" in text
    assert "here: Some CPU, 2 threads, 16.0 GiB, Linux x86_64; there: Another CPU, 2 threads" in text
    assert "here: seed" not in report(here)


def test_weights_are_named_by_hash_and_never_by_their_path(candidate, report):
    text = report(candidate("a", weights="file"), candidate("b", weights="pretrained"))
    assert "/home/me" not in text
    assert "vit_tiny at 128 px, pretrained weights `w.h5` (sha256 `eeeeeeeeeeeeeeee`)" in text
    assert "pretrained weights from the hub" in text


def test_the_archive_is_named_by_its_url_or_its_name(candidate, report):
    def said(source):
        one = candidate("a")
        one.run["dataset"]["source"] = source
        return report(one).split("cifar100 from ")[1].split(",")[0]

    assert said("/home/me/cifar.tar.xz") == said("file:///home/me/cifar.tar.xz") == "`cifar.tar.xz`"
    assert said("https://me:secret@example.org/cifar.tar.gz") == "`https://example.org/cifar.tar.gz`"


def test_random_weights_are_said_to_be_random(candidate, report):
    assert "random initial weights" in report(candidate("a"))


def test_a_part_of_the_training_pictures_is_said_to_be_one(candidate, report):
    few = candidate("few")
    few.run["params"]["train_fraction"] = 0.05
    assert "1 epoch of 5% of the training pictures in 10.0 minutes" in report(few)
    assert "1 epoch in 10.0 minutes" in report(candidate("all"))


def test_a_report_on_generated_pictures_says_so_before_anything_else(candidate, report):
    text = report(candidate("a"), source="demo")
    assert text.index("Generated pictures") < text.index("Ship a")
    assert "Generated pictures" not in report(candidate("a"))


def test_data_hardware_and_number_of_runs_are_named(candidate, report):
    text = report(candidate("a"))
    for part in ("45,000", "5,000", "10,000", "dddddddddddddddd", "Some CPU, 2 threads", "n = 1", "torch 2.0"):
        assert part in text


def test_an_int8_copy_is_told_with_what_it_gains_and_loses(candidate, dataset, findings):
    one = {
        **{"method": "static", "n": 5000, "difference": -0.002, "low": -0.0052, "high": 0.0012, "p_value": 0.25},
        "float32": {"top1": 0.8, "nll": 0.7, "ece": 0.1, "latency_p50_ms": 2.5, "throughput_images_per_second": 500.0},
        "int8": {"top1": 0.798, "nll": 0.71, "ece": 0.11, "latency_p50_ms": 1.25, "throughput_images_per_second": 1e3},
        "reason": "float32 is served: int8 may lose more",
    }
    one["float32"]["bytes"], one["int8"]["bytes"] = 22_100_000, 5_800_000
    candidates = [candidate("a"), candidate("b")]
    text = render(candidates, findings(*candidates) | {"int8": {"b": one}}, dataset, [])
    assert row_of(text, "### int8", "b") == [
        *("static", "80.00% → 79.80%", "-0.20 (-0.52 to +0.12)", "0.25", "0.700 → 0.710", "10.00% → 11.00%"),
        *("2.50 → 1.25", "500 → 1,000", "22.1 → 5.8"),
    ]
    section = text[text.index("### int8") : text.index("## Can its")]
    assert "| a |" not in section
    assert "- b: float32 is served: int8 may lose more.\n" in section
    assert "5,000 validation images" in section


def test_without_an_int8_copy_there_is_no_section_on_it(candidate, dataset, findings):
    one = candidate("a")
    for found in ({"int8": {}}, {}):
        assert "int8" not in render([one], findings(one) | found, dataset, [])


def test_the_precision_of_the_files_is_told(candidate, report):
    fast = candidate("fast")
    fast.profile["precision"] = "int8"
    assert "to logits, in int8. Cold" in report(fast)
    assert "The tables are in other: float32; fast: int8, as" in report(candidate("other", val=0.6), fast)
