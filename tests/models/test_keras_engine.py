"""The Keras engine: steps, epochs, phases, resuming, weights files, devices."""

import hashlib
import os
import pickle
import socket
from pathlib import Path

import numpy as np
import pytest

from stages.common.errors import UserError
from stages.common.settings import Compute
from stages.models.keras_engine import session, weights
from stages.models.keras_engine.model import Phase
from stages.models.keras_engine.weights import download_weights, read_weights
from stages.training import fit
from stages.training.batches import Batches
from stages.training.keras_engine.device import precision
from stages.training.keras_engine.loop import Data, compiled
from tests.models.conftest import assert_resumes
from tests.models.linear_keras import keras, linear_keras
from tests.models.small import CPU, tinted


def test_training_data_are_the_batches_of_the_epoch_in_their_order():
    batches = Batches(tinted(45), batch_size=10, seed=3, crop_padding=2, mixup=0.5)
    seen = [pair for first, stop in ((0, 2), (2, 5)) for pair in Data(batches, 4, epoch=1, first=first, stop=stop)]
    assert [len(images) for images, _ in seen] == [10, 10, 10, 10, 5]
    for (images, targets), batch in zip(seen, batches.epoch(1), strict=True):
        assert np.array_equal(images, batch.images)
        expected = batch.share * np.eye(4)[batch.labels] + (1 - batch.share) * np.eye(4)[batch.others]
        assert np.allclose(targets, expected)


@pytest.mark.parametrize(("head_steps", "interruption"), [(0, 20), (13, 20), (40, 40), (60, 40), (60, 60), (120, 100)])
def test_a_training_resumes_in_any_phase(tmp_path, head_steps, interruption):
    def make():
        classifier = linear_keras()
        classifier.head_steps = head_steps
        return classifier

    assert_resumes(make, tmp_path, interruption)


def test_an_epochs_training_metrics_are_means_over_all_its_images(reports):
    classifier = linear_keras()
    classifier.phases = lambda steps: [
        Phase(count, lambda layer: layer.name == "head", keras.optimizers.SGD(0.0)) for count in (2, steps - 2)
    ]
    train = tinted(450)  # 28 batches of 16 and one of 2: a smaller last batch, a report in the middle
    fit(classifier, train, train, epochs=1, compute=CPU, reporter=reports.reporter)
    metrics = reports.epochs[0][1]
    # Nothing learns at a rate of zero, so that training and validation saw the same network, but for mirrored images.
    assert metrics["train_top1"] == pytest.approx(metrics["val_top1"], abs=0.02)
    assert metrics["train_loss"] == pytest.approx(metrics["val_loss"], rel=0.05)


def test_weight_decay_pulls_on_matrices_only():
    optimizer = keras.optimizers.AdamW(0.0, weight_decay=0.1)
    model = compiled(linear_keras().network, Phase(1, lambda layer: True, optimizer), 0.0)
    decayed = {v.path for v in model.trainable_variables if optimizer._use_weight_decay(v)}
    assert decayed == {v.path for v in model.trainable_variables if v.path.endswith("kernel")}


def test_parameters_and_multiply_adds_are_those_of_the_layers():
    pixels = (32 // 8) ** 2 * 3
    assert linear_keras().multiply_adds() == pixels * 8 + 8 * 4
    assert linear_keras().num_parameters == (pixels + 1) * 8 + 4 * 8 + (8 + 1) * 4


class Bomb:
    """What a hostile pickle does when it is read."""

    def __reduce__(self):
        return os.mkdir, ("read",)


def test_weights_that_do_not_fit_are_refused_in_one_line_and_a_pickle_is_never_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classifier = linear_keras()
    before = classifier.network.get_weights()
    good = classifier.save_weights(tmp_path).read_bytes()
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    other.save_weights(tmp_path / "other.weights.h5")
    bomb = pickle.dumps(Bomb())
    contents = {"truncated.weights.h5": good[:-1000], "renamed.h5": good}
    contents |= dict.fromkeys(("bomb.weights.h5", "bomb.h5", "bomb.pkl", "bomb.keras"), bomb)
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in (*contents, "other.weights.h5", "missing.weights.h5", "."):
        with pytest.raises(UserError, match="cannot read what mobilenet_transfer saved") as caught:
            classifier.load_weights(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "read").exists()
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


CONTENT, URL = b"weights", "http://127.0.0.1:1/weights.h5"
MD5 = hashlib.md5(CONTENT).hexdigest()


def test_weights_are_downloaded_once_into_keras_cache_and_others_not_kept(monkeypatch, tmp_path):
    served = [b"others", CONTENT]

    def download(url, file, pooch):
        Path(file).write_bytes(served.pop(0))

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(weights.pooch, "HTTPDownloader", lambda **options: download)
    with pytest.raises(UserError, match="hash"):
        download_weights(URL, MD5, "the weights")
    assert list((tmp_path / "models").iterdir()) == []
    for _ in range(2):
        file = download_weights(URL, MD5, "the weights")
        assert (file, file.read_bytes()) == (tmp_path / "models/weights.h5", CONTENT)


def test_a_server_that_is_not_there_or_never_answers_is_one_line_with_the_ways_on(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "TIMEOUT", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for url in (f"http://127.0.0.1:{silent.getsockname()[1]}/weights.h5", URL):
            with pytest.raises(UserError) as caught:
                download_weights(url, MD5, "the weights of Some Network")
            for part in ("Some Network", url, "path of a file", "random"):
                assert part in str(caught.value)
            assert "\n" not in str(caught.value)


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
    session.configure(Compute())
    assert (visible[-1], growing) == (["gpu0"], [("gpu0", True)])
    session.configure(Compute(accelerator="cpu"))
    assert visible[-1] == []


@pytest.mark.parametrize(
    ("asked", "capability", "expected"),
    [
        ("auto", None, "float32"),
        ("auto", (7, 5), "float32"),
        ("auto", (9, 0), "bfloat16"),
        ("float32", (9, 0), "float32"),
        ("bfloat16", None, "bfloat16"),
    ],
)
def test_auto_precision_is_bfloat16_on_gpus_that_multiply_it(asked, capability, expected):
    assert precision(Compute(precision=asked), capability) == expected
