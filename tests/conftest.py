"""Shared by all tests: few threads, no pickle, no telemetry, nothing of the user's own set-up."""

import os

import pytest

# Before torch and TensorFlow are imported: two test processes with many threads each fight over the cores.
for variable in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DVC_NO_ANALYTICS"] = "1"
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"  # where the tests' own servers listen
for variable in ("MLFLOW_TRACKING_URI", "MODEL_NAME", "DVC_ROOT"):
    os.environ.pop(variable, None)
# The user's signing keys and hooks are no part of a test; neither is the repository a git hook runs in.
for variable in [name for name in os.environ if name.startswith("GIT_")]:
    del os.environ[variable]
os.environ["GIT_CONFIG_GLOBAL"] = os.devnull
os.environ["GIT_CONFIG_NOSYSTEM"] = "1"
for role in ("AUTHOR", "COMMITTER"):
    os.environ[f"GIT_{role}_NAME"], os.environ[f"GIT_{role}_EMAIL"] = "test", "test@localhost"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of several processes one runs all tests of a file, or all of the pipeline, which begin with a long run."""
    for item in items:
        folder = item.path.parent.name
        item.add_marker(pytest.mark.xdist_group(folder if folder == "pipeline" else str(item.path)))
