"""What every classifier does, whatever its framework: learn, report, save, load, and stop with one line."""

import random
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from scipy.special import log_softmax

from stages.common.errors import UserError
from stages.models import classifier_class, load, save
from stages.training import fit, runs_in_processes
from stages.training.batches import LabeledImages
from stages.training.checkpoints import Checkpoints
from stages.training.progress import Reporter, few_rows
from tests.models.conftest import assert_resumes
from tests.models.small import CPU, SMALL, classifier, tinted


def loss_and_top1(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    losses = -log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    return float(losses.mean()), float((logits.argmax(1) == labels).mean())


def ending_epochs_with(error: BaseException) -> Reporter:
    def fail(epoch, metrics):
        raise error

    return Reporter(on_epoch=fail)


def test_training_learns_and_reports_what_the_network_does(make, reports, tmp_path):
    train, val = tinted(320), tinted(100, seed=1)
    np.save(tmp_path / "images.npy", train.images)
    mapped = LabeledImages(np.load(tmp_path / "images.npy", mmap_mode="r"), train.labels)
    trained = make()
    fit(trained, mapped, val, epochs=3, compute=CPU, reporter=reports.reporter)
    assert [epoch for epoch, _ in reports.epochs] == [1, 2, 3]
    assert [step for step, _ in reports.steps] == [20, 40, 60]
    first, last = reports.epochs[0][1], reports.epochs[-1][1]
    assert last.keys() == {"train_loss", "train_top1", "val_loss", "val_top1", "learning_rate"}
    assert all(type(value) is float for _, metrics in reports.epochs + reports.steps for value in metrics.values())
    assert last["train_loss"] < first["train_loss"]
    assert last["val_top1"] > 0.9
    assert (last["val_loss"], last["val_top1"]) == pytest.approx(
        loss_and_top1(trained.logits(val.images), val.labels), abs=1e-4
    )
    assert trained.resolved["weights"] == "random"
    assert (trained.resolved["precision"], trained.resolved["device"]) == ("float32", "cpu")
    assert trained.resolved["threads"] >= 1


def test_points_within_a_training_are_measured_on_the_network_as_it_is_and_change_nothing(make, reports, tmp_path):
    train, val, weights = tinted(650), tinted(300, seed=1), []
    for learning in (False, True):
        trained = make()
        fit(trained, train, val, epochs=2, compute=CPU, reporter=reports.reporter, learning=learning)
        weights.append(trained.save_weights(tmp_path).read_bytes())
    assert weights[0] == weights[1]
    assert reports.epochs[:2] == reports.epochs[2:]
    assert reports.steps[: len(reports.steps) // 2] == reports.steps[len(reports.steps) // 2 :]
    assert [images for images, _ in reports.learning] == [144, 272, 400, 528, 650, 794, 922, 1050, 1178, 1300]
    assert reports.learning[4][1]["val_top1"] == pytest.approx(reports.epochs[0][1]["val_top1"])
    last = reports.learning[-1][1]
    assert (last["val_loss"], last["val_top1"]) == pytest.approx(
        loss_and_top1(trained.logits(val.images), val.labels), abs=1e-4
    )


def test_of_many_validation_images_a_thousand_are_measured_within_a_training():
    val = tinted(1200)
    rows = few_rows(val)
    assert len(set(rows)) == 1000
    assert rows.tolist() == sorted(rows) == few_rows(val).tolist()
    assert rows[-1] > 1100
    assert few_rows(tinted(30)).tolist() == list(range(30))


def test_a_budget_of_images_ends_within_a_pass_and_one_of_minutes_is_the_same_training(
    make, reports, tmp_path, monkeypatch
):
    train, val = tinted(16 * 12 + 5), tinted(40, seed=1)
    spent = fit(make(), train, val, images=400, compute=CPU, reporter=reports.reporter)
    assert spent == (pytest.approx(410 / 197, abs=1e-3), 2 * 197 + 16, 2 * 13 + 1, None)
    passes = [epoch for epoch, _ in reports.epochs]
    assert passes == [1, 2, pytest.approx(410 / 197, abs=1e-3)]
    first, last = (reports.epochs[index][1]["learning_rate"] for index in (0, -1))
    assert last < 0.1 * first or first == pytest.approx(0.03), "the schedule, if there is one, ends with the training"

    checkpoints = Checkpoints(tmp_path / "checkpoints", {}, minutes=5)
    timed = make()
    spent = fit(timed, train, val, minutes=0.01, compute=CPU, checkpoints=checkpoints)
    assert spent.steps == max(1, round(0.6 / spent.step_seconds))
    counted = make()
    assert fit(counted, train, val, images=spent.images, compute=CPU) == spent._replace(step_seconds=None)
    found = [trained.save_weights(tmp_path).read_bytes() for trained in (timed, counted)]
    assert found[0] == found[1]
    # Resumed, on a machine of another speed: the steps are those of its first start.
    monkeypatch.setattr(time, "perf_counter", lambda: pytest.fail("it measured again"))
    resumed = make()
    again = Checkpoints(tmp_path / "checkpoints", {}, minutes=5)
    assert fit(resumed, train, val, minutes=0.01, compute=CPU, checkpoints=again) == spent
    assert resumed.save_weights(tmp_path).read_bytes() == found[0]


def test_the_seed_decides_every_bit_and_the_callers_random_numbers_stay(make, tmp_path):
    contents, initial = [], []
    for run, seed in enumerate((1, 1, 2)):
        states = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()
        trained = make(seed=seed)
        initial.append(trained.save_weights(tmp_path).read_bytes())
        fit(trained, tinted(48), tinted(16, seed=1), epochs=1, compute=CPU)
        assert (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()) == states
        (tmp_path / str(run)).mkdir()
        contents.append(trained.save_weights(tmp_path / str(run)).read_bytes())
        random.random(), np.random.rand(), torch.rand(1)  # what others draw does not matter
    for first, same, other in (initial, contents):
        assert first == same
        assert (len(first), first != other) == (len(other), True)


@pytest.mark.parametrize("model", SMALL)
def test_a_saved_classifier_comes_back_with_the_same_logits(model, tmp_path):
    trained, examples = classifier(model, seed=3), tinted(32)
    fit(trained, examples, examples, epochs=1, compute=CPU)
    digest = save(trained, tmp_path)
    again = load(tmp_path)
    np.testing.assert_array_equal(again.logits(examples.images), trained.logits(examples.images))
    assert (again.num_classes, again.image_size, again.settings.classifier) == (4, 32, model)
    (tmp_path / "again").mkdir()
    assert save(again, tmp_path / "again") == digest


def test_logits_are_float32_of_any_number_of_images(make):
    built, images = make(), tinted(300).images
    logits = built.logits(images)
    assert (logits.dtype, logits.shape) == (np.float32, (300, 4))
    np.testing.assert_allclose(built.logits(images[1:2]), logits[1:2], atol=1e-5)
    assert built.logits(images[:0]).shape == (0, 4)


def test_bfloat16_trains_float32_weights(make, reports):
    trained, val = make(), tinted(100, seed=1)
    compute = CPU.model_copy(update={"precision": "bfloat16"})
    fit(trained, tinted(320), val, epochs=2, compute=compute, reporter=reports.reporter)
    assert trained.resolved["precision"] == "bfloat16"
    logits = trained.logits(val.images)
    assert logits.dtype == np.float32
    assert loss_and_top1(logits, val.labels)[1] > 0.7
    weights = trained.network.state_dict().values() if hasattr(trained, "body") else trained.network.weights
    assert {str(weight.dtype).removeprefix("torch.") for weight in weights} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"


def test_validation_loss_knows_no_label_smoothing(make, reports):
    fit(make(label_smoothing=0.9), tinted(320), tinted(64, seed=1), epochs=3, compute=CPU, reporter=reports.reporter)
    metrics = reports.epochs[-1][1]
    assert metrics["train_loss"] > 1.2  # at this smoothing no network gets far below log 4
    assert metrics["val_loss"] < metrics["train_loss"]


def test_a_loss_that_diverges_ends_the_training_with_one_line(make):
    built = make()
    if hasattr(built, "body"):
        torch.nn.init.constant_(built.body.head.bias, float("inf"))
    else:
        head = built.network.get_layer("head")
        head.set_weights([head.get_weights()[0], np.full(4, np.inf)])
    with pytest.raises(UserError, match="the loss became nan by step .*: lower the learning rate") as caught:
        fit(built, tinted(400), tinted(16), epochs=1, compute=CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("vit_scratch", torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")),
        ("vit_scratch", RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")),
        ("vit_scratch", MemoryError()),
        ("mobilenet_transfer", tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")),
    ],
)
def test_too_little_memory_is_one_line_that_names_the_batch_size(model, error):
    with pytest.raises(UserError, match=f"{model}: out of memory with batch_size = 16: lower it") as caught:
        fit(classifier(model), tinted(16), tinted(16), epochs=1, compute=CPU, reporter=ending_epochs_with(error))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("something else"), KeyboardInterrupt("something else")])
def test_other_errors_keep_their_names(error):
    with pytest.raises(type(error), match="something else"):
        built = classifier("vit_scratch")
        fit(built, tinted(32), tinted(16), epochs=1, compute=CPU, reporter=ending_epochs_with(error))


@pytest.mark.slow
@pytest.mark.parametrize(("model", "interruptions"), [("vit_scratch", (120,)), *((model, (20, 60)) for model in SMALL)])
def test_an_interrupted_training_ends_with_the_bits_of_a_whole_one(model, interruptions, tmp_path):
    drawing = {  # random numbers of their own
        "vit_scratch": {"dropout": 0.1, "ema": 0.9},
        "vit_transfer": {"patch_dropout": 0.5},
        "mobilenet_transfer": {"dropout": 0.2, "small_size": 32, "image_size": 64},
    }
    assert_resumes(lambda: classifier(model, **drawing[model]), tmp_path, *interruptions)


def test_only_torch_networks_trained_as_a_whole_share_a_training_between_processes():
    assert runs_in_processes(classifier("vit_scratch"))
    assert runs_in_processes(classifier("vit_transfer"))
    assert not runs_in_processes(classifier("vit_transfer", finetune="head"))
    assert not runs_in_processes(classifier("mobilenet_transfer"))


def test_what_cannot_be_built_is_refused():
    with pytest.raises(UserError, match="choose one of mobilenet_transfer, vit_scratch, vit_transfer"):
        classifier_class("resnet")
    with pytest.raises(UserError, match="vit_scratch: patch_size = 5 does not divide image size 32"):
        classifier("vit_scratch", patch_size=5)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("weights.safetensors", lambda content: content[:-1] + bytes([content[-1] ^ 1]), "is missing or damaged"),
        ("weights.safetensors", None, "is missing or damaged"),
        ("classifier.json", None, r"cannot read .*classifier\.json"),
        ("classifier.json", lambda content: content.replace(b'"depth": 1', b'"depth": 2'), "does not fit vit_scratch"),
    ],
)
def test_a_damaged_classifier_is_not_loaded(tmp_path, file, change, message):
    save(classifier("vit_scratch"), tmp_path)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).unlink()
    if change:
        (tmp_path / file).write_bytes(change(content))
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)
