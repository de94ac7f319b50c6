"""A pretrained Vision Transformer of timm, fine-tuned."""
