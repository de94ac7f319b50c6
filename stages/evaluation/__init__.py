"""Measures of a classifier: pure functions on arrays."""
