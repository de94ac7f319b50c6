"""MLflow: the store, runs and their replay, the packaged model, the registry and its gate."""

import os

# MLflow reads the first while it is imported, so neither can wait. Nothing leaves the machine unasked, and nothing
# that could run code is unpickled.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
