"""The pipeline: one module per DVC stage, run as ``python -m stages.<name>``, and the libraries behind them."""
