"""MLflow: the store, runs and their replay, the packaged model, the registry and its gate."""

import os

# MLflow reads the first while it is imported, so none can wait. Nothing leaves the machine unasked, nothing that could
# run code is unpickled, and copying small files shows no progress bar.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
