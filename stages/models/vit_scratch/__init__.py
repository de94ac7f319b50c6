"""A Vision Transformer written from the ground up and trained from random initial weights."""
