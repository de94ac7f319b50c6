"""What the Keras classifiers share."""
