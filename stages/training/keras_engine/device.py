"""Which device and number format to train a Keras classifier in."""

import tensorflow as tf

from stages.common.settings import Compute
from stages.models.base import Classifier
from stages.models.keras_engine import session

NATIVE_BFLOAT16 = (8, 0)  # NVIDIA's Ampere is the first generation that multiplies it


def resolve(classifier: Classifier, compute: Compute) -> None:
    """Note in `classifier.resolved` the device, precision and threads of its training."""
    gpus = tf.config.get_visible_devices("GPU")
    details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
    classifier.resolved |= {
        "device": details.get("device_name", "gpu") if gpus else "cpu",
        "precision": precision(compute, details.get("compute_capability")),
        "threads": session.num_threads(),
    }


def precision(compute: Compute, capability: tuple[int, int] | None) -> str:
    """'float32' or 'bfloat16'. `auto` takes bfloat16 on a GPU that multiplies it natively.

    capability: the compute capability of the GPU, if there is one. On CPUs `auto` is float32 even where they know
    bfloat16: TensorFlow's depthwise convolutions do not use it, and training takes twice as long.
    """
    if compute.precision != "auto":
        return compute.precision
    return "bfloat16" if capability and capability >= NATIVE_BFLOAT16 else "float32"
