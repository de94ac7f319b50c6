"""MLflow: runs, the packaged model, the registry."""
