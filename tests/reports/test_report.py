"""The text of the comparison."""

from stages.report import render, verdict


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
    same = candidate("same", val=0.6, test=0.6, latency=20, size=40_000_000, seconds=1200)
    assert "and neither faster, smaller nor quicker to train" in verdict([best, same], dataset)


def test_weights_are_named_by_hash_and_never_by_their_path(candidate, dataset):
    text = render([candidate("a", weights="file"), candidate("b", weights="pretrained")], dataset, {})
    assert "/home/me" not in text
    assert "vit_tiny at 128 px, pretrained weights `w.h5` (sha256 `eeeeeeeeeeeeeeee`)" in text
    assert "pretrained weights from the hub" in text


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
