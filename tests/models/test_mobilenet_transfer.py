"""mobilenet_transfer: initial weights, what is trained, the same bytes in any process."""

import importlib

import numpy as np
import pytest

from stages.common.errors import UserError
from stages.models import prepare_frameworks
from stages.models.mobilenet_transfer.model import HUB_FILES, URL
from stages.training import fit
from tests.models.small import CPU, classifier, tinted

prepare_frameworks()

import keras  # noqa: E402

from stages.models.keras_engine.model import leaf_layers  # noqa: E402


def mobilenet(**changes):
    return classifier("mobilenet_transfer", **changes)


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
    return str(file)


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
@pytest.mark.parametrize(
    ("start", "finetune", "kept"),
    [("random", "full", set()), ("file", "full", {"norm"}), ("file", "head", {"norm", "backbone"})],
)
def test_pretrained_batchnorm_is_left_alone_and_by_a_head_the_whole_backbone(
    backbone_file, reports, start, finetune, kept
):
    weights, count = ("random", 320) if start == "random" else (backbone_file, 100)
    built = mobilenet(weights=weights, finetune=finetune, lr=0.003)
    before = weights_by_kind(built)
    fit(built, tinted(count), tinted(100, seed=1), epochs=4, compute=CPU, reporter=reports.reporter)
    assert unchanged(before, weights_by_kind(built)) == kept
    assert built.resolved["weights"] == start
    assert ("weights_sha256" in built.resolved) == (start == "file")
    assert start == "file" or reports.epochs[-1][1]["val_top1"] > 0.8


@pytest.mark.parametrize(
    ("start", "fraction", "expected"), [("file", 0.15, 15), ("file", 1.0, 100), ("random", 0.15, 0)]
)
def test_phases_share_out_all_steps(backbone_file, start, fraction, expected):
    built = mobilenet(weights=backbone_file if start == "file" else start, head_fraction=fraction)
    assert [phase.steps for phase in built.phases(100)] == [expected, 100 - expected]


def test_learning_rate_rises_then_falls_to_zero(backbone_file):
    head, rest = (phase.optimizer for phase in mobilenet(weights=backbone_file, lr=0.001).phases(1000))
    assert float(head.learning_rate) == pytest.approx(0.003)
    rates = []
    for step in (0, 42, 85, 467, 849):
        rest.iterations.assign(step)
        rates.append(float(rest.learning_rate))
    assert rates == pytest.approx([0, 0.0005, 0.001, 0.0005, 0], abs=2e-5)


def test_weights_of_another_variant_are_refused_in_one_line(backbone_file):
    with pytest.raises(UserError, match="cannot read the ImageNet weights of Keras' MobileNetV3 large") as caught:
        mobilenet(variant="large", weights=backbone_file)
    assert "\n" not in str(caught.value)


def test_pretrained_weights_are_those_of_keras():
    source = importlib.import_module("keras.src.applications.mobilenet_v3")
    assert source.BASE_WEIGHT_PATH == URL
    for variant, (name, md5) in HUB_FILES.items():
        assert name == f"weights_mobilenet_v3_{variant}_224_1.0_float_no_top_v2.h5"
        assert source.WEIGHTS_HASHES[f"{variant}_224_1.0_float"][1] == md5


def test_size_and_cost_are_those_of_the_paper():
    classifier = mobilenet(image_size=224, num_classes=100)
    assert classifier.num_parameters == 939_120 + 576 * 100 + 100
    # 56 million with the original top, whose layers after the pooling take 1.6 million.
    assert classifier.multiply_adds() == pytest.approx(55e6, rel=0.02)
