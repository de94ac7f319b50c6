"""What the PyTorch classifiers share."""
