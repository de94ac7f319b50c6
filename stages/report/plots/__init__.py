"""Figures: one function each, arrays or tables in, a matplotlib Figure out."""
