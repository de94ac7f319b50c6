"""mobilenet_transfer behind the contract: initial weights, what is trained, saving, loading."""

import importlib.util
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from stages.common.errors import UserError
from stages.common.settings import Compute
from stages.models import load
from stages.models.base import Reporter
from stages.models.keras_engine.model import leaf_layers
from stages.models.keras_engine.session import keras
from stages.models.mobilenet_transfer.model import HUB_FILES, URL, MobilenetTransfer

CPU = Compute(accelerator="cpu", precision="float32", threads=1)
MobilenetTransfer.configure(CPU)
TINY = {"variant": "small", "weights": "random", "image_size": 32, "batch_size": 16}


@pytest.fixture
def mobilenet(settings_of):
    def make(seed=0, num_classes=4, **changes):
        return MobilenetTransfer(settings_of("mobilenet_transfer", **(TINY | changes)), num_classes, 32, seed)

    return make


@pytest.fixture(scope="module")
def backbone_file(tmp_path_factory):
    """Initial weights in a file: what Keras writes for a backbone whose BatchNorm has seen something."""
    keras.utils.set_random_seed(7)
    backbone = keras.applications.MobileNetV3Small((64, 64, 3), include_top=False, pooling="avg", weights=None)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(layer.moving_mean + 0.1)
            layer.moving_variance.assign(layer.moving_variance * 0.5)
    file = tmp_path_factory.mktemp("weights") / "backbone.weights.h5"
    backbone.save_weights(file)
    return file


def fit(classifier, train, val, epochs=1, reporter=None):
    reporter = reporter or Reporter(lambda step, metrics: None, lambda epoch, metrics: None)
    classifier.fit(train, val, epochs=epochs, compute=CPU, reporter=reporter)


def weights_by_kind(classifier):
    """Copies of all weights: of BatchNorm layers, of other backbone layers, of the head."""
    kinds = {"norm": [], "backbone": [], "head": []}
    for layer in leaf_layers(classifier.network):
        kind = "norm" if isinstance(layer, keras.layers.BatchNormalization) else "backbone"
        kinds["head" if layer.name == "head" else kind] += [np.array(value) for value in layer.get_weights()]
    return kinds


def unchanged(before, after):
    return {
        kind for kind in before if all(np.array_equal(a, b) for a, b in zip(before[kind], after[kind], strict=True))
    }


@pytest.mark.slow
def test_random_start_learns(mobilenet, easy_examples, reports):
    classifier = mobilenet(lr=0.003)
    before = weights_by_kind(classifier)
    val = easy_examples(100, seed=1)
    fit(classifier, easy_examples(320), val, epochs=4, reporter=reports.reporter)
    assert unchanged(before, weights_by_kind(classifier)) == set()
    assert [epoch for epoch, _ in reports.epochs] == [1, 2, 3, 4]
    assert [step for step, _ in reports.steps] == [20, 40, 60, 80]
    first, last = reports.epochs[0][1], reports.epochs[-1][1]
    assert last["train_loss"] < first["train_loss"]
    assert last["val_top1"] > 0.8
    assert last["learning_rate"] == pytest.approx(0, abs=1e-6)
    accuracy = (classifier.logits(val.images).argmax(1) == val.labels).mean()
    assert accuracy == pytest.approx(last["val_top1"], abs=1e-6)
    assert classifier.resolved["weights"] == "random"
    assert "weights_sha256" not in classifier.resolved


@pytest.mark.slow
def test_training_from_a_file_is_repeatable_and_leaves_batchnorm_alone(
    mobilenet, backbone_file, easy_examples, reports, tmp_path
):
    files = []
    for run in ("first", "second"):
        classifier = mobilenet(weights=str(backbone_file))
        before = weights_by_kind(classifier)
        fit(classifier, easy_examples(100), easy_examples(16, seed=1), epochs=2, reporter=reports.reporter)
        assert unchanged(before, weights_by_kind(classifier)) == {"norm"}
        (tmp_path / run).mkdir()
        files.append(classifier.save_weights(tmp_path / run))
    assert files[0].read_bytes() == files[1].read_bytes()
    assert [epoch for epoch, _ in reports.epochs] == [1, 2, 1, 2]
    assert reports.epochs[:2] == reports.epochs[2:]
    assert classifier.resolved["weights"] == "file"
    assert len(classifier.resolved["weights_sha256"]) == 64


def test_finetune_head_trains_the_head_alone(mobilenet, backbone_file, easy_examples):
    classifier = mobilenet(weights=str(backbone_file), finetune="head")
    before = weights_by_kind(classifier)
    fit(classifier, easy_examples(40), easy_examples(16))
    assert unchanged(before, weights_by_kind(classifier)) == {"norm", "backbone"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"finetune": "full", "head_fraction": 0.15}, [15, 85]),
        ({"finetune": "full", "head_fraction": 0.0}, [0, 100]),
        ({"finetune": "full", "head_fraction": 1.0}, [100, 0]),
        ({"finetune": "full", "weights": "random"}, [0, 100]),
    ],
)
def test_phases_share_out_all_steps(mobilenet, backbone_file, changes, expected):
    classifier = mobilenet(**({"weights": str(backbone_file)} | changes))
    assert [phase.steps for phase in classifier.phases(100)] == expected


def test_learning_rate_rises_then_falls_to_zero(mobilenet, backbone_file):
    head, rest = (phase.optimizer for phase in mobilenet(weights=str(backbone_file), lr=0.001).phases(1000))
    assert float(head.learning_rate) == pytest.approx(0.003)
    rates = []
    for step in (0, 42, 85, 467, 849):
        rest.iterations.assign(step)
        rates.append(float(rest.learning_rate))
    assert rates == [
        pytest.approx(0, abs=2e-5),
        pytest.approx(0.0005, rel=0.05),
        pytest.approx(0.001, rel=0.01),
        pytest.approx(0.0005, rel=0.05),
        pytest.approx(0, abs=1e-6),
    ]


def test_saved_and_loaded_it_gives_the_same_logits_bit_for_bit(mobilenet, backbone_file, easy_examples, tmp_path):
    classifier = mobilenet(seed=3, weights=str(backbone_file))
    images = easy_examples(20).images
    classifier.save(tmp_path)
    loaded = load(tmp_path)
    assert np.array_equal(loaded.logits(images), classifier.logits(images))
    assert loaded.logits(images[:1]).dtype == np.float32


@pytest.mark.slow
def test_saved_weights_have_the_same_bytes_in_another_process(mobilenet, tmp_path):
    mobilenet()  # Keras numbers layers through the whole process
    here = mobilenet(seed=4).save_weights(tmp_path).read_bytes()
    (tmp_path / "there").mkdir()
    code = (
        "from pathlib import Path\n"
        "from stages.models import params\n"
        "from stages.models import classifier_class\n"
        "shipped = params.read().model('mobilenet_transfer')\n"
        f"settings = type(shipped).model_validate(shipped.model_dump() | {TINY!r})\n"
        "classifier = classifier_class('mobilenet_transfer')(settings, 4, 32, 4)\n"
        f"classifier.save_weights(Path({str(tmp_path / 'there')!r}))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    assert (tmp_path / "there" / "weights.weights.h5").read_bytes() == here


def test_weights_of_another_variant_are_refused_in_one_line(mobilenet, backbone_file):
    with pytest.raises(UserError, match="do not fit: expected .* MobileNetV3 large") as caught:
        mobilenet(variant="large", weights=str(backbone_file))
    assert "\n" not in str(caught.value)


def test_missing_weights_are_named(mobilenet, tmp_path):
    with pytest.raises(UserError, match="none.weights.h5 .No such file.*MobileNetV3 small"):
        mobilenet(weights=str(tmp_path / "none.weights.h5"))


@pytest.mark.parametrize("variant", ["small", "large"])
def test_pretrained_without_network_says_what_was_tried_and_the_ways_on(mobilenet, monkeypatch, tmp_path, variant):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    asked = []

    def no_network(request, **options):
        asked.append(request.full_url)
        raise urllib.error.URLError("Network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    with pytest.raises(UserError) as caught:
        mobilenet(variant=variant, weights="pretrained")
    assert asked == [URL + HUB_FILES[variant][0]]  # once
    for part in (f"MobileNetV3 {variant}", asked[0], "Network is unreachable", "path of a file", "random"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pretrained_weights_are_those_of_keras():
    source = importlib.import_module("keras.src.applications.mobilenet_v3")
    assert source.BASE_WEIGHT_PATH == URL
    for variant, (name, md5) in HUB_FILES.items():
        assert name == f"weights_mobilenet_v3_{variant}_224_1.0_float_no_top_v2.h5"
        assert source.WEIGHTS_HASHES[f"{variant}_224_1.0_float"][1] == md5


def test_size_and_cost_are_those_of_the_paper(mobilenet):
    classifier = mobilenet(image_size=224, num_classes=100)
    assert classifier.num_parameters == 939_120 + 576 * 100 + 100
    # 56 million with the original top, whose layers after the pooling take 1.6 million.
    assert classifier.multiply_adds() == pytest.approx(55e6, rel=0.02)


def test_pictures_are_upsampled_within_their_range(mobilenet):
    classifier = mobilenet(image_size=64)
    upsample = classifier.network.get_layer("upsample")
    images = np.full((2, 32, 32, 3), 255, np.uint8)
    assert upsample(images).shape == (2, 64, 64, 3)
    assert np.allclose(upsample(images), 255, atol=0.01)
