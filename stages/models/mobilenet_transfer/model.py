"""Keras' MobileNetV3 behind the contract."""

from functools import cached_property, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from stages.common.files import file_sha256
from stages.models.base import FinetunedClassifier
from stages.models.keras_engine import session
from stages.models.keras_engine.model import KerasClassifier, Phase, leaf_layers
from stages.models.keras_engine.weights import download_weights, read_weights
from stages.models.mobilenet_transfer.settings import Settings

# Where Keras keeps its ImageNet weights, with its own checksums (keras.applications, mobilenet_v3).
URL = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v3/"
HUB_FILES = {
    "small": ("weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5", "d3e8ec802a04aa4fc771ee12a9a9b836"),
    "large": ("weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5", "07fb09a5933dd0c8eaafa16978110389"),
}
# Of BatchNorm's running means, only where the network starts from random weights. MobileNetV3's 0.999 is made for
# hundreds of thousands of steps: after one epoch of 700 the means would still be half their initial values. With 0.99
# validation stayed at chance for 280 steps, as it does with frozen BatchNorm, while 0.9 followed the training accuracy.
RANDOM_START_MOMENTUM = 0.9
# Share of the steps with a rising rate, when all layers are trained. Adam's first steps are as long as its rate allows
# whatever the gradient: without a warm-up they wreck the pretrained features.
WARMUP_FRACTION = 0.1


class MobilenetTransfer(FinetunedClassifier, KerasClassifier):
    """MobileNetV3 (Howard et al., 2019, https://arxiv.org/abs/1905.02244) with ImageNet weights and a new head.

    Images are upsampled bicubically to the setting `image_size` inside the network, which takes pixels from 0 to 255
    and rescales them itself. `finetune: full` trains the head alone for `head_fraction` of all steps, then every layer
    but BatchNorm; `head` fits the head alone, to features that are computed once. `weights: random` knows no head
    phase, since there is nothing to protect, and trains BatchNorm too.

    With `small_size` the first `small_fraction` of all steps, and validation in it, sees smaller images, to save time
    (Touvron et al., 2019, https://arxiv.org/abs/1906.06423).
    """

    settings: Settings

    def build(self, dtype_policy: str, size: int | None = None) -> keras.Model:
        """size: pixels that images are upsampled to; None: the setting `image_size`."""
        s = self.settings
        size = size or s.image_size
        architecture = {"small": keras.applications.MobileNetV3Small, "large": keras.applications.MobileNetV3Large}
        with session.seeded(self.seed):
            images = keras.Input((self.image_size, self.image_size, 3), dtype="uint8", name="images")
            upsample = keras.layers.Resizing(size, size, interpolation="bicubic", dtype="float32", name="upsample")
            keras.config.set_dtype_policy(dtype_policy)  # keras.applications takes none as an argument
            backbone = architecture[s.variant](
                input_shape=(size, size, 3),
                include_top=False,
                pooling="avg",
                weights=None,
                name="backbone",
            )
            keras.config.set_dtype_policy("float32")
            dropout = keras.layers.Dropout(s.dropout, seed=self.seed, dtype="float32", name="dropout")
            head = keras.layers.Dense(self.num_classes, dtype="float32", name="head")
            network = keras.Model(images, head(dropout(backbone(upsample(images)))), name=s.classifier)
        for index, layer in enumerate(backbone.layers):
            if not layer.variables:
                # Keras numbers unnamed layers through the whole process and writes their names into weights files.
                layer.name = f"layer_{index}"
        if s.weights == "random":
            for layer in leaf_layers(backbone):
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.momentum = RANDOM_START_MOMENTUM
        return network

    def initialize(self) -> None:
        s = self.settings
        if s.weights == "random":
            self.resolved["weights"] = "random"
            return
        expected = f"the ImageNet weights of Keras' MobileNetV3 {s.variant} without its top"
        if s.weights == "pretrained":
            name, md5 = HUB_FILES[s.variant]
            file = download_weights(URL + name, md5, expected)
        else:
            file = Path(s.weights).expanduser()
        read_weights(self.network.get_layer("backbone"), file, expected)
        self.resolved |= {
            "weights": "pretrained" if s.weights == "pretrained" else "file",
            "weights_sha256": file_sha256(file),
        }

    def forward_for_export(self, images: tf.Tensor) -> tf.Tensor:
        # Bicubic upsampling as two matrix products: runtimes disagree on the operator Resize (by 0.05 in a logit, seen
        # between two), and some take longer for it than for the network.
        upsample = self.network.get_layer("upsample")
        columns = np.eye(self.image_size, dtype=np.float32)[:, :, np.newaxis, np.newaxis]
        with tf.init_scope():  # now, not in the graph
            matrix = upsample(columns.repeat(2, axis=2)).numpy()[:, :, 0, 0].T  # upsampled size, image_size
        pixels = tf.transpose(tf.cast(images, tf.float32), (0, 3, 1, 2))  # N, 3, rows, columns
        pixels = tf.matmul(tf.constant(matrix), tf.matmul(pixels, tf.constant(matrix.T.copy())))
        rest = keras.Model(upsample.output, self.network.outputs[0])
        return rest(tf.transpose(pixels, (0, 2, 3, 1)), training=False)

    def backbone_facts(self) -> dict[str, Any]:
        s = self.settings
        # Random weights follow from the seed.
        weights = self.resolved.get("weights_sha256", f"random, seed {self.seed}")
        return {"variant": s.variant, "image_size": s.image_size, "weights": weights}

    @cached_property
    def _headless(self) -> keras.Model:
        return keras.Model(self.network.inputs, self.network.get_layer("dropout").input)

    def features(self, images: np.ndarray) -> np.ndarray:
        return self._headless.predict_on_batch(np.asarray(images))

    def set_head(self, weight: np.ndarray, bias: np.ndarray) -> None:
        self.network.get_layer("head").set_weights([weight, bias])

    def phases(self, steps: int) -> list[Phase]:
        s = self.settings
        random_start = s.weights == "random"
        head_steps = 0 if random_start else round(s.head_fraction * steps)
        small_steps = round(s.small_fraction * steps) if s.small_size else 0
        rate, build_small = _rise_and_fall(s.lr, steps - head_steps), partial(self.build, size=s.small_size)
        phases, step = [], 0
        for border in sorted({head_steps, small_steps, steps} - {0}):
            if step < head_steps:
                trains, optimizer = _is_head, keras.optimizers.Adam(s.head_lr)
            else:
                trains, optimizer = self._is_trained, keras.optimizers.AdamW(rate, weight_decay=s.weight_decay)
            build = build_small if step < small_steps else None
            continues = step not in (0, head_steps)  # only the size of the images changes
            phases.append(Phase(border - step, trains, optimizer, build, continues))
            step = border
        return phases

    def _is_trained(self, layer: keras.layers.Layer) -> bool:
        # Frozen BatchNorm layers keep the statistics that the pretrained weights were made for; files in which they are
        # folded into the convolutions hold no statistics at all. Keras 3 looks at `trainable` only: calling the
        # backbone with training=False does not freeze them within fit.
        return self.settings.weights == "random" or not isinstance(layer, keras.layers.BatchNormalization)


def _is_head(layer: keras.layers.Layer) -> bool:
    return layer.name == "head"


def _rise_and_fall(rate: float, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Linearly from near zero to `rate`, then along half a cosine to zero."""
    warmup = max(1, round(WARMUP_FRACTION * steps))
    return keras.optimizers.schedules.CosineDecay(
        rate / warmup, max(1, steps - warmup), warmup_target=rate, warmup_steps=warmup
    )
