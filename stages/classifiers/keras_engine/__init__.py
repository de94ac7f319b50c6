"""Training and inference of the TensorFlow classifiers, on Keras."""

import os

# Keras and TensorFlow read these once, when they are first imported: so before any module of this folder imports them.
# What the user set stays.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
