"""Training and inference of the TensorFlow classifiers, on Keras."""

import contextlib
import importlib
import os

# Keras and TensorFlow read these once, when they are first imported: so before any module of this folder imports them.
# What the user set stays.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Triton, which comes with torch for CUDA, crashes a process that has loaded TensorFlow before it. The app, say, may
# load models of both frameworks, in any order.
with contextlib.suppress(ImportError):
    importlib.import_module("triton._C.libtriton")
