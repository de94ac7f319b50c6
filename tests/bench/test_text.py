"""The benchmark's text, from given numbers."""

import copy

import pytest

from stages.tools.bench.report import headline, render, share_of_the_rest


def result(images_per_second, memory, **more):
    return {
        "device": "cpu",
        "threads": 2,
        "num_parameters": 1_500_000,
        "precision": "float32",
        "steps": 5,
        "step_seconds": 64 / images_per_second,
        "images_per_second": images_per_second,
        "peak_memory_mb": memory,
    } | more


def ours(images_per_second, memory):
    return result(
        images_per_second,
        memory,
        precision="bfloat16",
        model_step_seconds=0.96 * 64 / images_per_second,
        checkpoint_seconds=3.0,
        forward_images_per_second=1234.5,
    )


BENCHMARK = {
    "data": "random pictures",
    "hardware": {"cpu": "Some CPU", "cores": 2, "memory_gb": 16.0, "system": "Linux x86_64", "python": "3.11.7"},
    "versions": {"torch": "2.0", "keras": "3.0"},
    "minutes": 9.4,
    "warm_up": 3,
    "workers": 2,
    "checkpoint_minutes": 5.0,
    "settings": {"net": {"batch_size": 64, "image_size": 128}},
    "models": {
        "net": {
            # The machine is half as fast in the last round.
            "ours": [ours(300, 900), ours(400, 1000), ours(150, 1100)],
            "notebook": [result(100, 1000), result(100, 1000), result(50, 1000)],
        }
    },
    "epoch": None,
}


@pytest.fixture
def benchmark():
    return copy.deepcopy(BENCHMARK)


def test_the_headline_is_the_median_of_the_rounds_own_ratios(benchmark):
    assert "net **3.00 times** as fast, with 1.00 times the memory" in headline(benchmark["models"])
    assert headline(benchmark["models"]) in render(benchmark)


def test_the_table_gives_medians_and_how_far_ratios_spread(benchmark):
    assert (
        "| net | 300.0 | 100.0 | **3.00** (3.00 to 4.00) | 1,000 MiB | 1,000 MiB | **1.00** (0.90 to 1.10) |"
        in render(benchmark).splitlines()
    )


def test_the_share_of_the_rest_counts_checkpoints_at_their_rate():
    one = {"step_seconds": 1.0, "model_step_seconds": 0.96, "checkpoint_seconds": 0.0}
    assert share_of_the_rest([one], 5.0) == pytest.approx([0.04])
    # Three seconds every five minutes make each step 1 % longer.
    assert share_of_the_rest([one | {"checkpoint_seconds": 3.0}], 5.0) == pytest.approx([1 - 0.96 / 1.01])
    assert share_of_the_rest([one | {"model_step_seconds": 1.1}], 5.0)[0] < 0


def test_the_parts_of_a_step_have_a_table(benchmark):
    assert (
        "| net | 213.3 ms | 204.8 ms | **5.0%** (5.0% to 5.0%) | 3,000 ms | 1,234.5 |" in render(benchmark).splitlines()
    )


def test_all_that_decides_the_numbers_is_said(benchmark):
    text = render(benchmark)
    for part in (
        "random pictures",
        "Weights: random",
        "Some CPU, 2 cores, 16.0 GiB",
        "n = 3 rounds",
        "9.4 minutes in all",
        "1.50 M parameters, 128 px, batches of 64, cpu, CPU threads: 2",
        "ours in bfloat16",
        "notebook way in float32",
        "DataLoader with 2 workers",
        "first 3 steps",
        "torch 2.0, keras 3.0",
    ):
        assert part in text


def test_a_model_without_a_size_of_its_own_has_none_in_the_text(benchmark):
    del benchmark["settings"]["net"]["image_size"]
    assert "1.50 M parameters, batches of 64" in render(benchmark)


def test_numbers_of_steps_that_differ_are_given_as_a_range(benchmark):
    benchmark["models"]["net"]["ours"][1]["steps"] = 9
    assert "5 to 9 steps a round; the notebook way in float32, 5 steps a round" in render(benchmark)


EPOCH = {
    "model": "net",
    "notebook": {"seconds": 400.0, "top1": 0.164, "val_pictures": 2000},
    "ours": {"seconds": 100.0, "step": 140, "top1": 0.171},
}


def test_an_epoch_that_was_not_measured_is_said_to_be_missing(benchmark):
    assert "Not measured in this run: `python -m stages.tools.bench --epochs`" in render(benchmark)
    assert "Not measured" not in render(benchmark | {"epoch": EPOCH})


def test_the_time_to_the_notebooks_accuracy_is_told(benchmark):
    text = render(benchmark | {"epoch": EPOCH})
    assert "16.4% of 2,000 validation pictures right after its one epoch, which takes 400 s" in text
    assert "net passes that after 100 s (step 140, 17.1%), in **0.25 times** that time. n = 1" in text


def test_an_accuracy_that_was_not_reached_is_told(benchmark):
    missed = EPOCH | {"ours": {"seconds": None, "step": 1400, "top1": 0.15}}
    assert "net does not pass that within an epoch: it ends with 15.0%" in render(benchmark | {"epoch": missed})
