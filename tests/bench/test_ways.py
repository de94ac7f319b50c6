"""The notebook way and ours, really trained for a few steps."""

import numpy as np
import pytest
import torch

from stages.models import classifier_class, settings_class
from stages.models.base import Examples
from stages.tools.bench import __main__ as bench
from stages.tools.bench import epoch, torch_way


@pytest.fixture(autouse=True)
def no_loading_processes(monkeypatch):
    monkeypatch.setattr(torch_way, "WORKERS", 0)


def grey(labels: np.ndarray) -> Examples:
    """Pictures of 32 px in one grey each, 40 times their label."""
    images = np.broadcast_to(labels[:, None, None, None] * 40, (len(labels), 32, 32, 3))
    return Examples(images.astype(np.uint8), labels)


def test_torch_pictures_arrive_in_the_networks_size_normalised_and_with_their_labels():
    examples = grey(np.arange(6))
    batches = torch_way.loader(examples, 48, [0.5] * 3, [0.25] * 3, batch_size=6, augment=False)
    [(images, labels)] = batches
    assert images.shape == (6, 3, 48, 48)
    assert images.dtype == torch.float32
    assert labels.tolist() == list(range(6))
    expected = (labels * 40 / 255 - 0.5) / 0.25
    assert torch.allclose(images, expected[:, None, None, None].expand(images.shape), atol=1e-5)


def test_torch_pictures_are_shuffled_and_cropped_for_training_alone():
    examples = grey(np.arange(1, 7))
    torch.manual_seed(0)
    [(images, labels)] = torch_way.loader(examples, 32, [0.0] * 3, [1.0] * 3, batch_size=6, augment=True)
    assert sorted(labels.tolist()) == list(range(1, 7)) != labels.tolist()
    assert (images == 0).any()  # a crop shows the black border
    assert torch.allclose(images.amax((1, 2, 3)), labels * 40 / 255)


def test_keras_pictures_arrive_in_the_networks_size_with_their_labels():
    from stages.tools.bench import keras_way

    [(images, labels)] = list(keras_way.pixels(grey(np.arange(6)), 48, batch_size=6))
    assert images.shape == (6, 48, 48, 3)
    assert images.dtype == "float32"
    assert sorted(labels.numpy()) == list(range(6))
    assert np.allclose(images, labels.numpy()[:, None, None, None] * 40)


def test_the_notebook_way_trains_the_models_own_network_until_it_is_enough(job_of):
    classifier, _ = job_of("vit_scratch").start()
    before = {name: value.clone() for name, value in classifier.body.state_dict().items()}
    asked = []

    def is_enough():
        asked.append(1)
        return len(asked) == 40  # more than the 30 steps of an epoch

    count = torch_way.train_as_notebook(classifier, job_of("vit_scratch").examples("train"), is_enough)
    assert count == classifier.num_parameters
    assert len(asked) == 40
    assert any(not torch.equal(before[name], value) for name, value in classifier.body.state_dict().items())


def test_the_models_own_step_is_a_training_step(job_of):
    from stages.training.batches import Batches

    job = job_of("vit_scratch")
    classifier, compute = job.start()
    batch = Batches(job.examples("train"), 20, seed=0).batch(0, 0)
    before = classifier.logits(batch.images)
    step = torch_way.model_step(classifier, batch, compute)
    try:
        for _ in range(20):
            step(0.5)
    finally:
        torch.use_deterministic_algorithms(False)

    def loss(logits):
        return float(torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(batch.labels)))

    assert loss(classifier.logits(batch.images)) < loss(before) - 0.2


@pytest.mark.slow
def test_both_ways_of_every_model_are_measured_on_the_same_network(tiny_params, tiny_data, monkeypatch, tmp_path):
    monkeypatch.setattr(bench.paths, "PREPARED", tiny_data.folder)
    monkeypatch.setattr(bench.paths, "SCRATCH", tmp_path / "scratch")
    measured = bench.measure(tiny_params, with_epochs=False, rounds=1, seconds=0.0)
    assert set(measured["models"]) == {"vit_scratch", "vit_transfer", "mobilenet_transfer"}
    for name, ways in measured["models"].items():
        [ours], [notebook] = ways["ours"], ways["notebook"]
        settings = measured["settings"][name]
        kind = classifier_class(name)
        expected = kind(settings_class(name).model_validate(settings), 5, 32)
        assert ours["num_parameters"] == notebook["num_parameters"] == expected.num_parameters
        for result in (ours, notebook):
            assert (result["device"], result["threads"], result["precision"]) == ("cpu", 1, "float32")
            assert result["steps"] == 2
            assert result["images_per_second"] == pytest.approx(4 / result["step_seconds"])
            assert result["peak_memory_mb"] > 100
        for measure in ("model_step_seconds", "checkpoint_seconds", "forward_images_per_second"):
            assert ours[measure] > 0
    assert "demo, 120 training pictures" in measured["data"]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_notebooks_epoch_is_measured_and_scored(job_of):
    result = epoch.notebook(job_of("vit_scratch"))
    assert result["val_pictures"] == 20
    assert result["top1"] in [count / 20 for count in range(21)]
    assert result["seconds"] > 0


@pytest.fixture
def clock(monkeypatch):
    """Stands still but while our classifier is asked, which takes 100 seconds."""
    from stages.models.vit_scratch.model import VitScratch

    now = [0.0]
    logits = VitScratch.logits

    def slow(self, images):
        now[0] += 100
        return logits(self, images)

    monkeypatch.setattr(VitScratch, "logits", slow)
    monkeypatch.setattr(epoch.time, "perf_counter", lambda: now[0])
    return now


def test_ours_stops_where_validation_passes_the_target(job_of, clock):
    result = epoch.ours(job_of("vit_scratch", batch_size=2), target=-1.0)
    assert result["step"] == 20  # the first report of three
    assert result["seconds"] == 0  # but for looking


def test_ours_may_not_get_there(job_of, clock):
    result = epoch.ours(job_of("vit_scratch", batch_size=2), target=1.0)
    assert result["seconds"] is None
    assert result["step"] == 60


def test_looking_is_no_part_of_the_time(job_of, clock, monkeypatch):
    seen = []

    class Climbing(float):
        """A target that is passed at the third look."""

        def __lt__(self, top1):
            seen.append(top1)
            return len(seen) == 3

    result = epoch.ours(job_of("vit_scratch", batch_size=2), target=Climbing(0.5))
    assert result["step"] == 60
    assert clock[0] == 300
    assert result["seconds"] == 0
