"""Keras on TensorFlow: quiet, seeded, and on the devices and threads the user asked for."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from stages.common.errors import UserError
from stages.common.settings import Compute

NATIVE_BFLOAT16 = (8, 0)  # NVIDIA's Ampere is the first generation that multiplies it


def check_keras() -> None:
    """UserError where Keras was set up, by the environment or ~/.keras/keras.json, in a way that cannot work."""
    if keras.config.backend() != "tensorflow":
        raise UserError(
            f"Keras runs on {keras.config.backend()} in this process, this classifier needs TensorFlow: "
            "unset KERAS_BACKEND or set it to tensorflow"
        )
    if keras.config.image_data_format() != "channels_last":
        raise UserError(
            f"image_data_format = {keras.config.image_data_format()!r} in ~/.keras/keras.json: set it to channels_last"
        )


def leave_gpu_memory() -> None:
    """Take one GPU at most, and of its memory only what is needed: TensorFlow would reserve all of every GPU."""
    try:
        visible = tf.config.get_visible_devices("GPU")[:1]
        tf.config.set_visible_devices(visible, "GPU")
        for gpu in visible:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
        pass  # TensorFlow runs already: whoever started it decided


def configure(compute: Compute) -> None:
    """Set threads and devices. TensorFlow takes them only before its first computation; says so where it is too late.

    Calling it again with the same values is fine.
    """
    try:
        if compute.threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(compute.threads)
            tf.config.threading.set_inter_op_parallelism_threads(compute.threads)
    except RuntimeError:
        if compute.threads != num_threads():
            print(f"TensorFlow goes on with the {num_threads()} CPU threads it started with, not {compute.threads}")
    try:
        if compute.accelerator == "cpu":
            tf.config.set_visible_devices([], "GPU")
    except RuntimeError:
        print("TensorFlow goes on with the GPU it started with, although compute.accelerator = 'cpu'")
    leave_gpu_memory()
    if compute.accelerator in ("gpu", "mps") and not tf.config.get_visible_devices("GPU"):
        raise UserError(
            f"compute.accelerator = {compute.accelerator!r}, but TensorFlow sees no GPU here: set it to auto or cpu"
        )


def num_threads() -> int:
    """CPU threads that one operation may use."""
    chosen = tf.config.threading.get_intra_op_parallelism_threads()
    return chosen or int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or Compute().cpu_threads


def device_name() -> str:
    """The GPU's name, or 'cpu'."""
    gpus = tf.config.get_visible_devices("GPU")
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "gpu") if gpus else "cpu"


def resolve_precision(compute: Compute) -> str:
    """'float32' or 'bfloat16'. `auto` takes bfloat16 on a GPU that multiplies it natively.

    On CPUs `auto` is float32 even where they know bfloat16: TensorFlow's depthwise convolutions do not use it, and
    training takes twice as long.
    """
    if compute.precision != "auto":
        return compute.precision
    gpus = tf.config.get_visible_devices("GPU")
    capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability") if gpus else None
    return "bfloat16" if capability and capability >= NATIVE_BFLOAT16 else "float32"


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


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Build layers under another policy: keras.applications takes none as an argument."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
