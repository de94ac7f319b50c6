"""MLflow: the store, runs and their replay, the packaged model, the registry and its gate."""

import os

# MLflow reads the first while it is imported, so none can wait. Nothing leaves the machine unasked, nothing that could
# run code is unpickled, and neither progress bars of small files nor links get between the lines of a stage.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"  # whatever another project needs
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
