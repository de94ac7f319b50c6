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
from stages.training.keras_engine import loop  # noqa: E402


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
    ("start", "fraction", "small", "expected"),
    [
        ("file", 0.15, None, ["15 head", "85"]),
        ("file", 1.0, None, ["100 head"]),
        ("random", 0.15, None, ["100"]),
        ("file", 0.15, 0.7, ["15 small head", "55 small", "30 continues"]),
        ("file", 0.15, 0.1, ["10 small head", "5 head continues", "85"]),
        ("file", 0.15, 0.15, ["15 small head", "85"]),
        ("file", 0.15, 1.0, ["15 small head", "85 small"]),
        ("random", 0.15, 0.7, ["70 small", "30 continues"]),
    ],
)
def test_phases_share_out_all_steps(backbone_file, start, fraction, small, expected):
    sizes = {"small_size": 32, "small_fraction": small} if small else {}
    weights = backbone_file if start == "file" else start
    built, found = mobilenet(weights=weights, head_fraction=fraction, image_size=64, **sizes), []
    for phase in built.phases(100):
        marks = {"small": phase.build, "head": not phase.trains(keras.layers.Dense(1)), "continues": phase.continues}
        found.append(" ".join([str(phase.steps), *(mark for mark, is_set in marks.items() if is_set)]))
    assert found == expected


@pytest.mark.slow
def test_a_training_may_begin_with_smaller_images_and_goes_on_as_it_was(backbone_file, monkeypatch):
    def train(small_size):
        """Sizes of the phases' images, the last optimizer, and the weights, trained without anything that draws."""
        built = mobilenet(weights=backbone_file, image_size=64, small_size=small_size, dropout=0.0, lr=0.003)
        made, compiled = [], loop.compiled
        monkeypatch.setattr(loop, "compiled", lambda *arguments: made.append(compiled(*arguments)) or made[-1])
        fit(built, tinted(320), tinted(100, seed=1), epochs=2, compute=CPU)
        sizes = [model.get_layer("upsample").output.shape[1] for model in made]
        return sizes, int(made[-1].optimizer.iterations.numpy()), built.network.get_weights(), built

    sizes, steps, small, built = train(32)
    assert (sizes, steps) == ([32, 32, 64], 40 - 6)  # the whole phase of all layers, not its last part
    assert built.multiply_adds() == mobilenet(weights=backbone_file, image_size=64).multiply_adds()
    sizes, steps, of_one_size, _ = train(None)
    assert (sizes, steps) == ([64, 64], 40 - 6)
    sizes, steps, again, _ = train(64)  # the same size in networks of their own: the same weights
    assert (sizes, steps) == ([64, 64, 64], 40 - 6)
    assert all(np.array_equal(one, other) for one, other in zip(of_one_size, again, strict=True))
    assert not any(np.array_equal(one, other) for one, other in zip(small[-2:], again[-2:], strict=True))


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
