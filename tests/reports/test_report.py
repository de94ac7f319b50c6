"""The text of the comparison."""

import pytest

from stages.report import render, verdict
from stages.tracking import gate
from stages.tracking.gate import choose_champion


def test_the_best_on_validation_is_to_be_shipped_even_where_another_is_better_on_test(candidate, dataset):
    text = render([candidate("b", val=0.6, test=0.7), candidate("a", val=0.61, test=0.6)], dataset, {})
    assert "**Ship a**" in text
    assert "60.0% of 10,000 test pictures (chosen for its 61.0% on 5,000 validation pictures)" in text
    assert "b is 10.0 points ahead on test" in text


def test_the_table_is_ranked_by_validation(candidate, dataset):
    text = render([candidate(name, val=val) for name, val in (("low", 0.1), ("high", 0.9), ("mid", 0.5))], dataset, {})
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert rows == ["model", "---", "high", "mid", "low"]


def test_what_a_lesser_model_is_better_at_is_said(candidate, dataset):
    best = candidate("best", val=0.8, test=0.8, latency=20, size=40_000_000, seconds=1200)
    small = candidate("small", val=0.6, test=0.6, latency=10, size=10_000_000, seconds=1200)
    assert (
        "small is 20.0 points behind on test, but 2.0 times as fast on one picture and 4.0 times as small."
        in verdict([best, small], dataset)
    )


@pytest.mark.parametrize(
    ("test", "latency", "said"),
    [
        (0.6, 10, "other is 20.0 points behind on test, but 2.0 times as fast on one picture."),
        (0.9, 10, "other is 10.0 points ahead on test, 2.0 times as fast on one picture."),
        (0.8, 10, "other is equal on test, 2.0 times as fast on one picture."),
        (0.6, 18, "other is 20.0 points behind on test, and not clearly faster, smaller or quicker to train."),
        (0.9, 20, "other is 10.0 points ahead on test, and not clearly faster, smaller or quicker to train."),
    ],
)
def test_another_models_place_and_price_are_told(candidate, dataset, test, latency, said):
    best, other = candidate("best", val=0.8, test=0.8, latency=20), candidate("other", test=test, latency=latency)
    assert said in verdict([best, other], dataset)


def test_of_equals_the_first_is_shipped_as_the_registry_does(candidate, dataset):
    text = render([candidate("z", val=0.5), candidate("a", val=0.5)], dataset, {})
    assert "**Ship z**" in text
    assert choose_champion([gate.Candidate("z", 0.5), gate.Candidate("a", 0.5)]).champion == "z"


def test_what_differs_between_the_models_is_told_of_each(candidate, dataset):
    here, there = candidate("here"), candidate("there")
    there.run["params"]["seed"] = 7
    there.profile["hardware"]["cpu"] = "Another CPU"
    text = render([here, there], dataset, {})
    assert "here: seed 0; there: seed 7" in text
    assert "here: Some CPU, 2 threads, 16.0 GiB, Linux x86_64; there: Another CPU, 2 threads" in text
    assert "here: seed" not in render([here], dataset, {})


def test_weights_are_named_by_hash_and_never_by_their_path(candidate, dataset):
    text = render([candidate("a", weights="file"), candidate("b", weights="pretrained")], dataset, {})
    assert "/home/me" not in text
    assert "vit_tiny at 128 px, pretrained weights `w.h5` (sha256 `eeeeeeeeeeeeeeee`)" in text
    assert "pretrained weights from the hub" in text


def test_the_archive_is_named_by_its_url_or_its_name(candidate, dataset):
    def said(source):
        one = candidate("a")
        one.run["dataset"]["source"] = source
        return render([one], dataset, {}).split("cifar100 from ")[1].split(",")[0]

    assert said("/home/me/cifar.tar.xz") == said("file:///home/me/cifar.tar.xz") == "`cifar.tar.xz`"
    assert said("https://me:secret@example.org/cifar.tar.gz") == "`https://example.org/cifar.tar.gz`"


def test_random_weights_are_said_to_be_random(candidate, dataset):
    assert "random initial weights" in render([candidate("a")], dataset, {})


def test_a_report_on_generated_pictures_says_so_before_anything_else(candidate, dataset):
    text = render([candidate("a")], dataset | {"source": "demo"}, {})
    assert text.index("Generated pictures") < text.index("Ship a")
    assert "Generated pictures" not in render([candidate("a")], dataset, {})


def test_data_hardware_and_number_of_runs_are_named(candidate, dataset):
    text = render([candidate("a")], dataset, {"Top-1": "plots/top1.png"})
    for part in ("45,000", "5,000", "10,000", "dddddddddddddddd", "Some CPU, 2 threads", "n = 1", "torch 2.0"):
        assert part in text
    assert "![Top-1](plots/top1.png)" in text


def test_one_model_is_enough(candidate, dataset):
    assert verdict([candidate("only")], dataset).startswith("**Ship only**")
