"""Training and inference of the TensorFlow classifiers, on Keras."""
