"""The Keras engine on a network small enough to train in a second: steps, epochs, reports, weights files."""

import hashlib
import os
import pickle
import random
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from stages.common.errors import UserError
from stages.common.settings import Compute
from stages.models.base import Examples, Reporter
from stages.models.keras_engine import session, weights
from stages.models.keras_engine.model import KerasClassifier, Phase
from stages.models.keras_engine.session import keras, tf
from stages.models.keras_engine.weights import download_weights, read_weights
from stages.training.batches import Batches
from stages.training.checkpoints import Checkpoints
from stages.training.keras_engine.loop import compiled, segments, training_data, validation_data

CPU = Compute(accelerator="cpu", precision="float32", threads=1)
URL = "https://storage.googleapis.com/somewhere/weights.h5"


class Small(KerasClassifier):
    """A linear model on pixels with a BatchNorm: first its head alone for `head_steps` steps, then everything."""

    head_steps = 3

    def build(self, dtype_policy):
        with session.seeded(self.seed), session.dtype_policy(dtype_policy):
            images = keras.Input((self.image_size, self.image_size, 3), dtype="uint8", name="images")
            pixels = keras.layers.Rescaling(1 / 255, name="rescaling")(images)
            pixels = keras.layers.Flatten(name="flatten")(keras.layers.AveragePooling2D(8, name="pool")(pixels))
            features = keras.layers.Dense(8, name="body")(pixels)
            features = keras.layers.BatchNormalization(momentum=0.5, name="norm")(features)
            logits = keras.layers.Dense(self.num_classes, dtype="float32", name="head")(features)
            return keras.Model(images, logits, name="small")

    def initialize(self):
        self.resolved["weights"] = "random"

    def phases(self, steps):
        return [
            Phase(self.head_steps, lambda layer: layer.name == "head", keras.optimizers.Adam(0.01)),
            Phase(steps - self.head_steps, lambda layer: True, keras.optimizers.AdamW(0.03, weight_decay=0.01)),
        ]


@pytest.fixture
def small(settings_of):
    def make(seed=0, **changes):
        changes = {"batch_size": 16, "label_smoothing": 0.0} | changes
        return Small(settings_of("mobilenet_transfer", **changes), 4, 32, seed)

    return make


def fit(classifier, train, val, epochs=1, compute=CPU, reporter=None):
    reporter = reporter or Reporter(lambda step, metrics: None, lambda epoch, metrics: None)
    classifier.fit(train, val, epochs=epochs, compute=compute, reporter=reporter)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 0, []),
        (0, 3, [(0, 0, 3)]),
        (3, 10, [(0, 3, 5), (1, 0, 5)]),
        (5, 10, [(1, 0, 5)]),
        (2, 11, [(0, 2, 5), (1, 0, 5), (2, 0, 1)]),
        (7, 7, []),
    ],
)
def test_segments_end_where_epochs_end(start, end, expected):
    assert list(segments(start, end, epoch_length=5)) == expected


def test_training_data_are_the_batches_of_the_epoch_in_their_order(easy_examples):
    batches = Batches(easy_examples(45), batch_size=10, seed=3, crop_padding=2, flip=True)
    seen = [
        (images, labels)
        for first, stop in ((0, 2), (2, 5))
        for images, labels in training_data(batches, 4, epoch=1, first=first, stop=stop).as_numpy_iterator()
    ]
    expected = list(batches.epoch(1))
    assert [len(images) for images, _ in seen] == [10, 10, 10, 10, 5]
    for (images, labels), batch in zip(seen, expected, strict=True):
        assert np.array_equal(images, batch.images)
        assert np.array_equal(labels.argmax(1), batch.labels)
        assert np.array_equal(labels.sum(1), np.ones(len(labels)))


def test_validation_data_are_all_examples_in_their_order(easy_examples):
    val = easy_examples(300)
    seen = list(validation_data(val, 4).as_numpy_iterator())
    assert np.array_equal(np.concatenate([images for images, _ in seen]), val.images)
    assert np.array_equal(np.concatenate([labels for _, labels in seen]).argmax(1), val.labels)


@pytest.mark.parametrize("head_steps", [0, 3, 13, 24])
def test_phases_make_up_every_step_and_epoch_once(small, easy_examples, reports, head_steps):
    classifier = small()
    classifier.head_steps = head_steps
    fit(classifier, easy_examples(120), easy_examples(50, seed=1), epochs=3, reporter=reports.reporter)
    assert [epoch for epoch, _ in reports.epochs] == [1, 2, 3]
    assert [step for step, _ in reports.steps] == [20]  # of 3 x 8
    keys = {"train_loss", "train_top1", "val_loss", "val_top1", "learning_rate"}
    for _, metrics in reports.epochs:
        assert metrics.keys() == keys
        assert all(type(value) is float for value in metrics.values())
    assert all(type(value) is float for value in reports.steps[0][1].values())


class BrokenOffError(Exception):
    """What breaks a training off."""


@pytest.mark.parametrize(("head_steps", "broken_off_after"), [(13, 20), (40, 40), (60, 40), (60, 60), (120, 100)])
def test_a_training_goes_on_in_any_phase(small, easy_examples, reports, tmp_path, head_steps, broken_off_after):
    train, val = easy_examples(16 * 40 - 3), easy_examples(50, seed=1)  # 40 steps an epoch: 40 is the end of one

    def run(checkpoints, reporter):
        classifier = small()
        classifier.head_steps = head_steps
        classifier.fit(train, val, epochs=3, compute=CPU, reporter=reporter, checkpoints=checkpoints)
        return classifier.network.get_weights()

    def interrupt(step, metrics):
        if step > broken_off_after:
            raise BrokenOffError

    expected = run(None, reports.reporter)
    with pytest.raises(BrokenOffError):
        run(Checkpoints(tmp_path, {}, minutes=1e-9), Reporter(interrupt, lambda epoch, metrics: None))
    resumed = type(reports)()
    weights = run(Checkpoints(tmp_path, {}, minutes=1e-9), resumed.reporter)
    assert [step for step, _ in resumed.steps] == list(range(broken_off_after + 20, 121, 20))
    assert resumed.steps == reports.steps[broken_off_after // 20 :]
    assert resumed.epochs == reports.epochs[broken_off_after // 40 :]
    assert all(np.array_equal(a, b) for a, b in zip(weights, expected, strict=True))


def test_an_epochs_training_metrics_are_means_over_all_its_examples(small, easy_examples, reports):
    classifier = small()
    classifier.phases = lambda steps: [
        Phase(2, lambda layer: layer.name == "head", keras.optimizers.SGD(0.0)),
        Phase(steps - 2, lambda layer: layer.name == "head", keras.optimizers.SGD(0.0)),
    ]
    train = easy_examples(450)  # 28 batches of 16 and one of 2: a smaller last batch, a report in the middle
    fit(classifier, train, train, reporter=reports.reporter)
    metrics = reports.epochs[0][1]
    # Nothing learns at a rate of zero, so that training and validation saw the same network.
    assert metrics["train_top1"] == pytest.approx(metrics["val_top1"], abs=0.02)  # crops differ
    logits = classifier.logits_of_trained_size(train.images)
    assert metrics["val_top1"] == pytest.approx(float((logits.argmax(1) == train.labels).mean()), abs=1e-6)
    log_sums = np.log(np.exp(logits).sum(1))
    nll = float((log_sums - logits[np.arange(450), train.labels]).mean())
    assert metrics["val_loss"] == pytest.approx(nll, rel=1e-4)
    assert metrics["train_loss"] == pytest.approx(nll, rel=0.05)


def test_validation_loss_knows_no_label_smoothing(small, easy_examples, reports):
    classifier = small(label_smoothing=0.9)
    fit(classifier, easy_examples(320), easy_examples(64, seed=1), epochs=3, reporter=reports.reporter)
    metrics = reports.epochs[-1][1]
    assert metrics["train_loss"] > 1.2  # at this smoothing no network gets far below log 4
    assert metrics["val_loss"] < metrics["train_loss"]


def test_training_learns(small, easy_examples, reports):
    classifier = small()
    val = easy_examples(100, seed=1)
    fit(classifier, easy_examples(320), val, epochs=3, reporter=reports.reporter)
    assert reports.epochs[-1][1]["val_top1"] > 0.9
    accuracy = (classifier.logits_of_trained_size(val.images).argmax(1) == val.labels).mean()
    assert accuracy == pytest.approx(reports.epochs[-1][1]["val_top1"], abs=1e-6)
    assert classifier.resolved["precision"] == "float32"
    assert classifier.resolved["device"] == "cpu"
    assert classifier.resolved["threads"] >= 1


def test_a_loss_that_is_no_number_stops_the_training(small, easy_examples):
    classifier = small()
    classifier.phases = lambda steps: [Phase(steps, lambda layer: True, keras.optimizers.SGD(1e30))]
    with pytest.raises(UserError, match="lower the learning rate"):
        fit(classifier, easy_examples(320), easy_examples(16), epochs=2)


@pytest.mark.parametrize("error", [tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"), MemoryError()])
def test_too_little_memory_is_one_line_that_says_what_to_lower(small, easy_examples, error):
    def fail(epoch, metrics):
        raise error

    with pytest.raises(UserError, match="out of memory with batch_size = 16: lower it") as caught:
        fit(small(), easy_examples(64), easy_examples(16), reporter=Reporter(lambda step, metrics: None, fail))
    assert "\n" not in str(caught.value)


def test_weight_decay_pulls_on_matrices_only(small):
    classifier = small()
    optimizer = keras.optimizers.AdamW(0.0, weight_decay=0.1)
    model = compiled(classifier.network, Phase(1, lambda layer: True, optimizer), 0.0)
    decayed = {v.path for v in model.trainable_variables if optimizer._use_weight_decay(v)}
    assert decayed == {v.path for v in model.trainable_variables if v.path.endswith("kernel")}


def test_bfloat16_trains_float32_weights(small, easy_examples):
    classifier = small()
    before = classifier.network.get_weights()
    val = easy_examples(100, seed=1)
    fit(classifier, easy_examples(320), val, epochs=2, compute=Compute(accelerator="cpu", precision="bfloat16"))
    assert classifier.resolved["precision"] == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"
    assert all(layer.compute_dtype == "float32" for layer in classifier.network.layers)
    assert all(value.dtype == np.float32 for value in classifier.network.get_weights())
    assert not np.array_equal(before[0], classifier.network.get_weights()[0])
    assert (classifier.logits_of_trained_size(val.images).argmax(1) == val.labels).mean() > 0.8


def test_training_twice_gives_the_same_bytes(small, easy_examples, tmp_path):
    files = []
    for run in ("first", "second"):
        (tmp_path / run).mkdir()
        classifier = small(seed=1)
        fit(classifier, easy_examples(120), easy_examples(16))
        files.append(classifier.save_weights(tmp_path / run))
        random.random(), np.random.rand()  # what others draw does not matter
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].name == "weights.weights.h5"


def test_the_seed_decides_initial_weights_and_spares_the_callers_random_numbers(small):
    random.seed(5), np.random.seed(5)
    expected = random.random(), np.random.rand()
    random.seed(5), np.random.seed(5)
    one, same, other = small(1), small(1), small(2)
    assert (random.random(), np.random.rand()) == expected
    assert np.array_equal(one.network.get_weights()[0], same.network.get_weights()[0])
    assert not np.array_equal(one.network.get_weights()[0], other.network.get_weights()[0])


def test_saving_holds_no_optimizer_and_no_time(small, easy_examples, tmp_path):
    classifier = small()
    before = classifier.save_weights(tmp_path).read_bytes()
    time.sleep(1.1)  # HDF5 can store times in seconds
    fit(classifier, easy_examples(64), easy_examples(16))
    after = classifier.save_weights(tmp_path).read_bytes()
    assert len(after) == len(before)
    classifier.load_weights(tmp_path / "weights.weights.h5")
    assert classifier.save_weights(tmp_path).read_bytes() == after


def test_logits_of_many_sizes_take_one_trace_and_little_memory(small, easy_examples):
    classifier = small()
    images = easy_examples(600).images
    logits = classifier.logits_of_trained_size(images)
    assert logits.dtype == np.float32
    assert logits.shape == (600, 4)
    assert np.allclose(logits[:1], classifier.logits_of_trained_size(images[:1]), atol=1e-5)
    assert classifier.logits_of_trained_size(images[:0]).shape == (0, 4)
    assert classifier._forward.experimental_get_tracing_count() == 1


def test_parameters_and_multiply_adds_are_those_of_the_layers(small):
    pixels = (32 // 8) ** 2 * 3
    assert small().multiply_adds() == pixels * 8 + 8 * 4
    assert small().num_parameters == (pixels + 1) * 8 + 4 * 8 + (8 + 1) * 4


class Bomb:
    """What a hostile pickle does when it is read."""

    def __reduce__(self):
        return os.mkdir, ("read",)


@pytest.mark.parametrize("name", ["weights.weights.h5", "weights.h5", "weights.pkl", "weights.keras"])
def test_a_pickle_is_never_read(small, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / name
    file.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="no HDF5 file"):
        small().load_weights(file)
    assert not (tmp_path / "read").exists()


def test_weights_that_cannot_be_read_are_refused_in_one_line(small, tmp_path):
    classifier = small()
    before = classifier.network.get_weights()
    good = classifier.save_weights(tmp_path)
    truncated = tmp_path / "truncated.weights.h5"
    truncated.write_bytes(good.read_bytes()[:-1000])
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    other.save_weights(tmp_path / "other.weights.h5")
    renamed = tmp_path / "renamed.h5"
    renamed.write_bytes(good.read_bytes())
    for file in (truncated, tmp_path / "other.weights.h5", renamed, tmp_path / "missing.weights.h5", tmp_path):
        with pytest.raises(UserError, match="expected what mobilenet_transfer saved") as caught:
            classifier.load_weights(file)
        assert file.name in str(caught.value)
        assert "\n" not in str(caught.value)
    for was, now in zip(before, classifier.network.get_weights(), strict=True):
        assert np.array_equal(was, now)


def test_the_older_h5_layout_is_read_too(tmp_path):
    network = keras.Sequential([keras.Input((3,), name="in"), keras.layers.Dense(2, name="dense")])
    file = tmp_path / "model.h5"
    network.save(file)  # the layout of Keras' own ImageNet weights
    expected = network.get_weights()
    network.set_weights([value + 1 for value in expected])
    read_weights(network, file, "a Dense layer")
    assert np.array_equal(network.get_weights()[0], expected[0])


def test_no_network_is_one_line_with_the_address_and_the_ways_on(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def no_network(*args, **options):
        raise urllib.error.URLError("Temporary failure in name resolution")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    with pytest.raises(UserError) as caught:
        download_weights(URL, "0" * 32, "the weights of Some Network")
    message = str(caught.value)
    for part in ("Some Network", URL, "name resolution", "path of a file", "random"):
        assert part in message
    assert "\n" not in message


def test_a_server_that_never_answers_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "PROBE_TIMEOUT", 0.2)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **options: time.sleep(30))
    started = time.monotonic()
    with pytest.raises(UserError, match="no answer within"):
        download_weights(URL, "0" * 32, "the weights")
    assert time.monotonic() - started < 20


def test_cached_weights_need_no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **options: pytest.fail("asked the network"))
    file = tmp_path / "models" / "weights.h5"
    file.parent.mkdir()
    file.write_bytes(b"weights")
    assert download_weights(URL, hashlib.md5(b"weights").hexdigest(), "the weights") == file


def test_another_keras_backend_is_named(small, monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "torch")
    with pytest.raises(UserError, match="Keras runs on torch .* KERAS_BACKEND"):
        small()


def test_threads_that_come_too_late_are_told(small, capsys):
    small()  # from here on TensorFlow runs
    session.configure(Compute(accelerator="cpu", threads=session.num_threads()))
    assert capsys.readouterr().out == ""
    session.configure(Compute(accelerator="cpu", threads=63))
    assert "CPU threads it started with, not 63" in capsys.readouterr().out


def test_a_gpu_that_is_not_there_is_named_instead_of_replaced(monkeypatch):
    monkeypatch.setattr(session.tf.config, "get_visible_devices", lambda kind: [])
    with pytest.raises(UserError, match="compute.accelerator = 'gpu', but TensorFlow sees no GPU"):
        session.configure(Compute(accelerator="gpu"))


def test_one_gpu_is_taken_and_its_memory_left_to_others(monkeypatch):
    visible, growing = [["gpu0", "gpu1"]], []
    monkeypatch.setattr(session.tf.config, "get_visible_devices", lambda kind: visible[-1])
    monkeypatch.setattr(session.tf.config, "set_visible_devices", lambda devices, kind: visible.append(devices))
    monkeypatch.setattr(
        session.tf.config.experimental, "set_memory_growth", lambda gpu, grow: growing.append((gpu, grow))
    )
    session.leave_gpu_memory()
    assert visible[-1] == ["gpu0"]
    assert growing == [("gpu0", True)]


def test_precision_is_float32_on_a_cpu_unless_asked_for(monkeypatch):
    monkeypatch.setattr(session.tf.config, "get_visible_devices", lambda kind: [])
    assert session.resolve_precision(Compute()) == "float32"
    assert session.resolve_precision(Compute(precision="bfloat16")) == "bfloat16"


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "float32"), ((9, 0), "bfloat16"), (None, "float32")])
def test_precision_on_a_gpu_follows_what_it_multiplies(monkeypatch, capability, expected):
    monkeypatch.setattr(session.tf.config, "get_visible_devices", lambda kind: ["gpu"])
    details = {"compute_capability": capability} if capability else {}
    monkeypatch.setattr(session.tf.config.experimental, "get_device_details", lambda gpu: details)
    assert session.resolve_precision(Compute()) == expected
    assert session.resolve_precision(Compute(precision="float32")) == "float32"


def test_examples_may_be_memory_mapped(small, easy_examples, tmp_path):
    train = easy_examples(64)
    np.save(tmp_path / "images.npy", train.images)
    mapped = Examples(np.load(tmp_path / "images.npy", mmap_mode="r"), train.labels)
    classifier = small()
    fit(classifier, mapped, mapped)
    assert classifier.logits(mapped.images).shape == (64, 4)
