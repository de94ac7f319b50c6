"""Keras' own fit, in phases."""
