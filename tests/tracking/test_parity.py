"""The real classifiers, exported and packaged, answer as they did in their framework, where no framework is left."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.common.files import file_sha256
from stages.inference.exported import Exported
from stages.inference.onnx_model import softmax
from stages.models import classifier_class
from stages.models.onnx_export import onnx_graph
from stages.models.params import read
from stages.tracking.package import Package

from .conftest import ABOUT, random_images

SHIPPED = Path(__file__).parents[2] / "params.yaml"
# Small networks: the weights do not matter, only that both sides use the same ones.
SETTINGS: dict[str, dict[str, Any]] = {
    "vit_scratch": {"depth": 1},
    "vit_transfer": {"weights": "random", "image_size": 32},
    "mobilenet_transfer": {"weights": "random", "variant": "small", "image_size": 64},
}
NUM_CLASSES = 10
SERVE = """
    import sys

    BLOCKED = {"torch", "torchvision", "timm", "lightning", "tensorflow", "keras", "stages"}

    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in BLOCKED:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Absent())
    import numpy as np
    from mlflow.pyfunc import load_model

    model = load_model("package")
    images = np.load("images.npy")
    np.save("served.npy", model.predict(images))
    model.predict(images, params={"top_k": 3}).to_json("rows.json", orient="records")
    assert not BLOCKED & set(sys.modules)
"""


def _make_predictions_differ(classifier: Any, images: np.ndarray) -> None:
    """As initial weights of two of them are, every image gets the same probabilities, which hides any difference."""
    if hasattr(classifier, "body"):
        import torch

        # Logits of a trained network's size, up to 4: float32 is right to about a millionth of the largest, at any
        # number of threads (1 to 8 tried). With weights of deviation 1 logits were up to 35, the difference 2e-5.
        generator = torch.Generator().manual_seed(0)
        torch.nn.init.normal_(classifier.body.head.weight, std=0.1, generator=generator)
        return
    import keras

    for layer in classifier.network._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable, layer.momentum = True, 0.0
    classifier.network(images, training=True)  # takes the statistics of these images


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_served_probabilities_are_the_trained_networks_without_its_framework(name: str, tmp_path: Path) -> None:
    images = random_images(24, side=32)
    settings = read(SHIPPED).models[name].model_copy(update=SETTINGS[name])
    classifier = classifier_class(name)(settings, num_classes=NUM_CLASSES, image_size=32, seed=3)
    _make_predictions_differ(classifier, images)
    expected = softmax(classifier.logits(images), 0.7)
    onnx_graph.write(classifier.onnx_graph(), tmp_path / "exported.onnx")
    description = {
        "weights_sha256": "w" * 64,
        "image_size": 32,
        "serves": "float32",
        "files": {
            "float32": {"file": str(tmp_path / "exported.onnx"), "sha256": file_sha256(tmp_path / "exported.onnx")}
        },
    }
    about = {**ABOUT, "temperature": 0.7, "class_names": [f"class {index}" for index in range(NUM_CLASSES)]}
    about |= {"superclass_of_class": [0, 1] * (NUM_CLASSES // 2)}
    Package(Exported(name, description), images[:1], about, metrics={}).save(tmp_path / "package")

    np.save(tmp_path / "images.npy", images)
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(SERVE)], check=True, cwd=tmp_path)
    served, rows = np.load(tmp_path / "served.npy"), json.loads((tmp_path / "rows.json").read_text())
    assert served.std(axis=0).max() > 1e-3, "the probabilities depend on the images"
    assert len(set(served.argmax(axis=1))) > 1, "and so does top-1"
    difference = np.abs(served - expected).max()
    print(f"{name}: largest difference of probabilities {difference:.1e}")
    assert difference < 1e-5
    assert (served.argmax(axis=1) == expected.argmax(axis=1)).all()
    assert [row["class"] for row in rows if row["rank"] == 1] == [f"class {row.argmax()}" for row in expected]
