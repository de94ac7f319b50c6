"""A head on a frozen backbone: the backbone runs once, the head is what scikit-learn would fit."""

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stages.training import fit, resolve
from stages.training.batches import LabeledImages
from stages.training.head import FeatureCache, fit_head
from tests.models.small import CPU, classifier, tinted


class MeanColour:
    """A backbone whose features are the image's mean colour: the tint is the class."""

    def __init__(self, num_classes: int = 4, facts: str = "first") -> None:
        self.num_classes = num_classes
        self.facts = facts
        self.seen = 0

    def backbone_facts(self) -> dict[str, Any]:
        return {"weights": self.facts}

    def features(self, images: np.ndarray) -> np.ndarray:
        self.seen += len(images)
        return np.asarray(images).mean((1, 2)).astype(np.float32)

    def set_head(self, weight: np.ndarray, bias: np.ndarray) -> None:
        self.weight, self.bias = weight, bias


def hard(count: int, seed: int = 0, classes: int = 4) -> LabeledImages:
    """Tints that overlap, so that the penalty matters."""
    examples = tinted(count, seed)
    noise = np.random.default_rng(seed + 100).integers(0, 100, (count, 1, 1, 3), dtype=np.uint8)
    return LabeledImages(examples.images // 3 + noise, np.minimum(examples.labels, classes - 1))


@pytest.mark.parametrize("classes", [4, 2])
def test_the_head_is_the_best_of_scikit_learns(reports, classes):
    train, val = hard(600, classes=classes), hard(300, seed=1, classes=classes)
    backbone = MeanColour(num_classes=classes)
    strength = fit_head(backbone, train, val, reports.reporter)
    features = backbone.features(val.images)
    expected = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
    expected.fit(backbone.features(train.images), train.labels)
    logits = features @ backbone.weight + backbone.bias
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.allclose(probabilities, expected.predict_proba(features), atol=0.02)
    (epoch, metrics), *more = reports.epochs
    assert (epoch, more) == (1, [])
    assert metrics["val_top1"] == pytest.approx((logits.argmax(1) == val.labels).mean())
    nll = -np.log(probabilities[np.arange(len(val.labels)), val.labels]).mean()
    assert metrics["val_loss"] == pytest.approx(nll, rel=1e-4)
    assert metrics["val_top1"] > 1.3 / classes


def test_a_class_without_training_images_is_never_predicted(reports):
    backbone = MeanColour(num_classes=6)
    fit_head(backbone, hard(300), hard(100, seed=1), reports.reporter)
    assert backbone.weight.shape == (3, 6)
    assert ((backbone.features(hard(100).images) @ backbone.weight + backbone.bias).argmax(1) < 4).all()


def test_features_are_computed_once_for_what_decides_them(tmp_path):
    images, backbone = tinted(300).images, MeanColour()
    cache = FeatureCache(tmp_path, {"data": "d", "code": "c"})
    expected = MeanColour().features(images)
    for _ in range(2):
        assert np.array_equal(cache.features(backbone, "train", images), expected)
        assert backbone.seen == len(images)
    for other_cache, other_backbone, split in (
        (FeatureCache(tmp_path, {"data": "d2", "code": "c"}), MeanColour(), "train"),
        (FeatureCache(tmp_path, {"data": "d", "code": "c2"}), MeanColour(), "train"),
        (cache, MeanColour(facts="second"), "train"),
        (cache, MeanColour(), "val"),
    ):
        other_cache.features(other_backbone, split, images)
        assert other_backbone.seen == len(images)


def test_a_crash_leaves_no_features_that_are_half_there(tmp_path, monkeypatch):
    images, cache = tinted(300).images, FeatureCache(tmp_path, {})

    def half(stream, array, **options):
        stream.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(np, "save", half)
        cache.features(MeanColour(), "train", images)
    assert np.array_equal(cache.features(MeanColour(), "train", images), MeanColour().features(images))


@pytest.mark.parametrize("model", ["vit_transfer", "mobilenet_transfer"])
def test_the_network_does_what_was_reported_and_its_backbone_is_left_alone(model, reports, tmp_path):
    train, val = tinted(200), tinted(80, seed=1)
    built, cache = classifier(model, finetune="head"), FeatureCache(tmp_path, {"data": "d"})
    resolve(built, CPU)
    before = built.features(val.images)
    fit(built, train, val, epochs=1, compute=CPU, reporter=reports.reporter, features=cache)
    top1 = (built.logits(val.images).argmax(1) == val.labels).mean()
    assert top1 == pytest.approx(reports.epochs[0][1]["val_top1"], abs=0.02)
    assert model == "mobilenet_transfer" or top1 > 0.5  # a random MobileNet sees next to nothing
    assert built.resolved["head_C"] > 0
    np.testing.assert_array_equal(built.features(val.images), before)
