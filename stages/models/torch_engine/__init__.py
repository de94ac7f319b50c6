"""Training and inference of the PyTorch classifiers, on Lightning."""
