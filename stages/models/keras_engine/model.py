"""What the Keras classifiers share: the contract's methods around a network."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from onnx import ModelProto

from stages.common.settings import ClassifierSettings, Compute
from stages.models.base import OPSET, Classifier
from stages.models.keras_engine import session
from stages.models.keras_engine.weights import read_weights

WEIGHTS = "weights.weights.h5"
INFERENCE_BATCH = 256  # images at a time: bounds the memory of large calls


@dataclass(frozen=True)
class Phase:
    """Consecutive optimizer steps that train the same layers.

    steps: how many.
    trains: whether a layer (one that holds no others) is trained.
    optimizer: a fresh one; its weight decay, if any, is applied to matrices and convolutions only.
    build: makes the network that is trained, as the classifier's own `build` does; None: that one. All phases share the
        weights' values.
    continues: the optimizer takes over the state of the phase before, which trains the same layers.
    """

    steps: int
    trains: Callable[[keras.layers.Layer], bool]
    optimizer: keras.optimizers.Optimizer
    build: Callable[[str], keras.Model] | None = None
    continues: bool = False


class KerasClassifier(Classifier):
    """A classifier whose network is a Keras model. A subclass builds the network and names the phases of training."""

    engine = "keras_engine"

    def __init__(self, settings: ClassifierSettings, num_classes: int, image_size: int, seed: int = 0) -> None:
        super().__init__(settings, num_classes, image_size, seed)
        keras.config.set_image_data_format("channels_last")  # whatever ~/.keras/keras.json says
        self.network = self.build("float32")
        self.initialize()
        # With the number of images left open one trace serves calls of every size.
        self.signature = [tf.TensorSpec((None, image_size, image_size, 3), tf.uint8)]
        self._forward = tf.function(lambda images: self.network(images, training=False), input_signature=self.signature)

    @classmethod
    def configure(cls, compute: Compute) -> None:
        session.configure(compute)

    @abstractmethod
    def build(self, dtype_policy: str) -> keras.Model:
        """A network with random weights: images (B, image_size, image_size, 3) uint8 to logits (B, C) float32.

        dtype_policy: 'float32' or 'mixed_bfloat16'; the weights are float32 either way.
        """

    @abstractmethod
    def initialize(self) -> None:
        """Load the initial weights into self.network; UserError where they cannot be had."""

    @abstractmethod
    def phases(self, steps: int) -> list[Phase]:
        """How training spends its `steps` optimizer steps, all of them."""

    def logits(self, images: np.ndarray) -> np.ndarray:
        logits = np.empty((len(images), self.num_classes), np.float32)
        for start in range(0, len(images), INFERENCE_BATCH):
            rows = slice(start, start + INFERENCE_BATCH)
            logits[rows] = self._forward(tf.constant(images[rows])).numpy()
        return logits

    def forward_for_export(self, images: tf.Tensor) -> tf.Tensor:
        """Logits (N, C) of images (N, S, S, 3) uint8, in operations that every ONNX runtime computes alike."""
        return self.network(images, training=False)

    def onnx_graph(self) -> ModelProto:
        self.network.trainable = False  # or BatchNormalization would be traced as in training
        function = tf.function(self.forward_for_export, input_signature=self.signature)
        graph, _ = tf2onnx.convert.from_function(function, input_signature=self.signature, opset=OPSET)
        return graph

    @property
    def num_parameters(self) -> int:
        return self.network.count_params()

    def multiply_adds(self) -> int:
        # Each number of a kernel takes part in one multiply-add per position of the layer's output.
        return sum(
            math.prod(layer.output.shape[1:-1]) * math.prod(layer.kernel.shape)
            for layer in leaf_layers(self.network)
            if hasattr(layer, "kernel")
        )

    def save_weights(self, folder: Path) -> Path:
        file = folder / WEIGHTS
        self.network.save_weights(file)
        return file

    def load_weights(self, file: Path) -> None:
        read_weights(self.network, file, f"what {self.settings.classifier} saved with these settings")


def leaf_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model and of the models within it, in the order of the forward pass."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer
