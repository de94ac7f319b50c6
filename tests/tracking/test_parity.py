"""The packaged models of the real classifiers: served and measured probabilities agree, and nothing else is needed."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages import classifiers
from stages.params import read
from stages.tracking.package import Package
from stages.tracking.packaged_model import softmax

from .conftest import pictures

SHIPPED = Path(__file__).parents[2] / "params.yaml"
# Small networks: the weights do not matter, only that both sides use the same ones.
SETTINGS: dict[str, dict[str, Any]] = {
    "vit_scratch": {"depth": 1},
    "vit_transfer": {"weights": "random", "image_size": 32},
    "mobilenet_transfer": {"weights": "random", "variant": "small", "image_size": 64},
}
TRAINING_LIBRARIES = ["lightning", "pytorch_lightning", "torchmetrics", "stages"]
FRAMEWORKS = {"torch": ["tensorflow", "keras"], "keras": ["torch", "timm"]}
SERVE = """
    import sys
    import numpy as np
    from mlflow.pyfunc import load_model

    model = load_model({package!r})
    np.save({out!r}, model.predict(np.load({images!r})))
    needless = [library for library in {needless!r} if library in sys.modules]
    assert not needless, needless
"""


def _make_answers_differ(classifier: Any, images: np.ndarray) -> None:
    """As initial weights of two of them are, every picture gets the same answer, which hides any difference."""
    if hasattr(classifier, "body"):
        torch.nn.init.normal_(classifier.body.head.weight)
        return
    import keras

    for layer in classifier.network._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable, layer.momentum = True, 0.0
    classifier.network(images, training=True)  # takes the statistics of these pictures


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_served_probabilities_are_the_measured_ones(name: str, tmp_path: Path) -> None:
    images = pictures(6, side=32)
    settings = read(SHIPPED).models[name].model_copy(update=SETTINGS[name])
    classifier = classifiers.classifier_class(name)(settings, num_classes=10, image_size=32, seed=3)
    _make_answers_differ(classifier, images)
    folder = tmp_path / "model"
    folder.mkdir()
    classifier.save(folder)
    about = {
        "model": name,
        "class_names": [str(index) for index in range(10)],
        "superclass_names": ["all"],
        "superclass_of_class": [0] * 10,
        "image_size": 32,
        "temperature": 0.7,
    }
    Package(folder, Path(classifiers.__file__).parent, images[:1], about, metrics={}).save(tmp_path / "package")

    np.save(tmp_path / "images.npy", images)
    framework = "keras" if name == "mobilenet_transfer" else "torch"
    script = SERVE.format(
        needless=TRAINING_LIBRARIES + FRAMEWORKS[framework],
        package=str(tmp_path / "package"),
        out=str(tmp_path / "served.npy"),
        images=str(tmp_path / "images.npy"),
    )
    # In a process of its own, which must do without the libraries of training and of the other framework.
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)], check=True, cwd=tmp_path)
    served = np.load(tmp_path / "served.npy")
    assert served.std(axis=0).max() > 1e-3, "the answers depend on the pictures"
    np.testing.assert_allclose(served, softmax(classifier.logits(images), 0.7), atol=1e-5)
