"""A head on a frozen backbone: the backbone runs once, the head is what scikit-learn would fit."""

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stages.common.settings import Compute
from stages.models.base import Examples, Training
from stages.models.keras_engine.session import keras  # noqa: F401 - TensorFlow first: see keras_engine
from stages.models.mobilenet_transfer.model import MobilenetTransfer
from stages.models.vit_transfer.model import VitTransfer
from stages.training.head import FeatureCache, fit_head

CPU = Compute(accelerator="cpu", precision="float32", threads=1)
SMALL: dict[str, tuple[type, dict[str, Any]]] = {
    "vit_transfer": (VitTransfer, {"backbone": "test_vit", "weights": "random", "image_size": 32, "finetune": "head"}),
    "mobilenet_transfer": (
        MobilenetTransfer,
        {"variant": "small", "weights": "random", "image_size": 32, "finetune": "head"},
    ),
}


class MeanColour:
    """A backbone whose features are the picture's mean colour: the tint is the class."""

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


@pytest.fixture
def hard_examples(easy_examples):
    """Tints that overlap, so that the penalty matters."""

    def make(count, seed=0, classes=4):
        examples = easy_examples(count, seed)
        rng = np.random.default_rng(seed + 100)
        noise = rng.integers(0, 100, (count, 1, 1, 3), dtype=np.uint8)
        return Examples(examples.images // 3 + noise, examples.labels % classes)

    return make


def head_training(train, val, reports, folder):
    return Training(train, val, 1, CPU, reports.reporter, features=FeatureCache(folder, {}))


@pytest.mark.parametrize("classes", [4, 2])
def test_the_head_is_the_best_of_scikit_learns(hard_examples, reports, tmp_path, classes):
    train, val = hard_examples(600, classes=classes), hard_examples(300, seed=1, classes=classes)
    backbone = MeanColour(num_classes=classes)
    strength = fit_head(backbone, head_training(train, val, reports, tmp_path))
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


def test_a_class_without_training_pictures_is_never_named(hard_examples, reports, tmp_path):
    backbone = MeanColour(num_classes=6)
    fit_head(backbone, head_training(hard_examples(300), hard_examples(100, seed=1), reports, tmp_path))
    assert backbone.weight.shape == (3, 6)
    assert ((backbone.features(hard_examples(100).images) @ backbone.weight + backbone.bias).argmax(1) < 4).all()


def test_features_are_computed_once_for_what_decides_them(easy_examples, tmp_path):
    images = easy_examples(300).images
    backbone = MeanColour()
    cache = FeatureCache(tmp_path, {"data": "d", "code": "c"})
    first = cache.features("train", backbone, images)
    assert isinstance(first, np.memmap)
    assert first.dtype == np.float32
    assert np.array_equal(first, MeanColour().features(images))
    seen = backbone.seen
    assert np.array_equal(cache.features("train", backbone, images), first)
    assert backbone.seen == seen
    for other_cache, other_backbone, split in (
        (FeatureCache(tmp_path, {"data": "d2", "code": "c"}), MeanColour(), "train"),
        (FeatureCache(tmp_path, {"data": "d", "code": "c2"}), MeanColour(), "train"),
        (cache, MeanColour(facts="second"), "train"),
        (cache, MeanColour(), "val"),
    ):
        other_cache.features(split, other_backbone, images)
        assert other_backbone.seen >= len(images)


def test_a_crash_leaves_no_features_that_are_half_there(easy_examples, tmp_path):
    class Crashing(MeanColour):
        def features(self, images):
            if self.seen > 200:
                raise KeyboardInterrupt
            return super().features(images)

    images = easy_examples(600).images
    cache = FeatureCache(tmp_path, {})
    with pytest.raises(KeyboardInterrupt):
        cache.features("train", Crashing(), images)
    whole = MeanColour()
    assert np.array_equal(cache.features("train", whole, images), MeanColour().features(images))
    assert whole.seen >= 600


@pytest.mark.parametrize("model", SMALL)
def test_another_head_does_not_touch_the_backbone_and_the_network_does_what_was_reported(
    model, settings_of, easy_examples, reports, tmp_path, monkeypatch
):
    kind, changes = SMALL[model]
    kind.configure(CPU)
    train, val = easy_examples(200), easy_examples(80, seed=1)
    cache = FeatureCache(tmp_path, {"data": "d"})

    def fitted(**head):
        classifier = kind(settings_of(model, **changes, **head), 4, 32)
        classifier.fit(train, val, epochs=1, compute=CPU, reporter=reports.reporter, features=cache)
        return classifier

    first = fitted()
    logits = first.logits(val.images)
    assert (logits.argmax(1) == val.labels).mean() == pytest.approx(reports.epochs[0][1]["val_top1"], abs=0.02)
    if model == "vit_transfer":  # a random MobileNet sees next to nothing
        assert reports.epochs[0][1]["val_top1"] > 0.5
    assert first.resolved["head_C"] > 0
    monkeypatch.setattr(kind, "features", lambda self, images: pytest.fail("the backbone ran again"))
    again = fitted(label_smoothing=0.2, head_lr=0.5)
    assert np.array_equal(again.logits(val.images), logits)
