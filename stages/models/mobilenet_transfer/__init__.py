"""A pretrained MobileNetV3 of Keras, fine-tuned."""
