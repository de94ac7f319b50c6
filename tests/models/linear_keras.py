"""A Keras classifier that trains in a second: linear on averaged pixels, with a BatchNorm."""

from typing import Any

from stages.models import prepare_frameworks

prepare_frameworks()

import keras  # noqa: E402

from stages.models.keras_engine import session  # noqa: E402
from stages.models.keras_engine.model import KerasClassifier, Phase  # noqa: E402
from tests.models.small import CLASSES, settings_of  # noqa: E402


class LinearKeras(KerasClassifier):
    """First its head alone for `head_steps` steps, then everything."""

    head_steps = 3

    def build(self, dtype_policy: str) -> keras.Model:
        with session.seeded(self.seed):
            keras.config.set_dtype_policy(dtype_policy)
            images = keras.Input((self.image_size, self.image_size, 3), dtype="uint8", name="images")
            pixels = keras.layers.Rescaling(1 / 255, name="rescaling")(images)
            pixels = keras.layers.Flatten(name="flatten")(keras.layers.AveragePooling2D(8, name="pool")(pixels))
            features = keras.layers.Dense(8, name="body")(pixels)
            features = keras.layers.BatchNormalization(momentum=0.5, name="norm")(features)
            logits = keras.layers.Dense(self.num_classes, dtype="float32", name="head")(features)
            keras.config.set_dtype_policy("float32")
            return keras.Model(images, logits, name="small")

    def initialize(self) -> None:
        self.resolved["weights"] = "random"

    def phases(self, steps: int) -> list[Phase]:
        return [
            Phase(self.head_steps, lambda layer: layer.name == "head", keras.optimizers.Adam(0.01)),
            Phase(steps - self.head_steps, lambda layer: True, keras.optimizers.AdamW(0.03, weight_decay=0.01)),
        ]


def linear_keras(seed: int = 0, **changes: Any) -> LinearKeras:
    return LinearKeras(settings_of("mobilenet_transfer", **({"label_smoothing": 0.0} | changes)), CLASSES, 32, seed)
