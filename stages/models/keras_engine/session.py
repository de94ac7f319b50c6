"""Keras on TensorFlow: quiet, seeded, and on the devices and threads the user asked for."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import keras
import numpy as np
import tensorflow as tf

from stages.common.errors import UserError
from stages.common.settings import Compute


def configure(compute: Compute) -> None:
    """Set threads and devices; of GPUs take one at most, and of its memory only what is needed.

    TensorFlow takes them only before its first computation; later it keeps those that it has. UserError where `compute`
    asks for a GPU that is not there.
    """
    with suppress(RuntimeError):
        if compute.threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(compute.threads)
            tf.config.threading.set_inter_op_parallelism_threads(compute.threads)
        visible = [] if compute.accelerator == "cpu" else tf.config.get_visible_devices("GPU")[:1]
        tf.config.set_visible_devices(visible, "GPU")
        for gpu in visible:
            tf.config.experimental.set_memory_growth(gpu, True)
    if compute.accelerator in ("gpu", "mps") and not tf.config.get_visible_devices("GPU"):
        raise UserError(
            f"compute.accelerator = {compute.accelerator!r}, but TensorFlow sees no GPU here: set it to auto or cpu"
        )


def num_threads() -> int:
    """CPU threads that one operation may use."""
    chosen = tf.config.threading.get_intra_op_parallelism_threads()
    return chosen or int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or Compute().cpu_threads


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed everything Keras draws from; the caller's own random numbers (Python's, NumPy's) stay as they were."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    keras.utils.set_random_seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
