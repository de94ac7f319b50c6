"""CIFAR-100 as published: 100 classes in 20 superclasses (Krizhevsky, 2009)."""

COUNTS = {"train": 50_000, "test": 10_000}
