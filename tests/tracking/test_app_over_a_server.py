"""The app's comparison, fetched from a real `mlflow server`, which the light environment of tests/gui lacks."""

import gc
from pathlib import Path

import pytest
from mlflow import MlflowClient

from gui import comparison, registry
from gui.registry import Version
from tests.gui import small_comparison
from tests.gui.conftest import METADATA

from .server import MlflowServer

NAMES = ("class_names", "superclass_names", "superclass_of_class")


@pytest.mark.slow
def test_over_a_server_every_file_is_fetched_once_into_a_folder_that_goes_with_it(tmp_path, monkeypatch):
    files = tmp_path / "files"
    files.mkdir()
    small_comparison.write(files, *(METADATA[key] for key in NAMES))
    with MlflowServer.of_store(tmp_path / "server") as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        registry.connect()
        client = MlflowClient(tracking_uri=server.uri)
        run_id = client.create_run(client.create_experiment("cifar100")).info.run_id
        client.log_artifacts(run_id, str(files))
        version = Version(server.uri, "cifar100-classifier", 1, 0, {"comparison_run_id": run_id})
        found = comparison.of(version)
        explorer = found.explorer()
        fetched = Path(explorer.images.filename)
        assert fetched.parent.parent.name.startswith("comparison-")
        assert found.table("curves")["model"].nunique() == 3
    # The server is gone; what was fetched is not.
    assert comparison.of(version).explorer() is explorer
    assert found.table("curves")["model"].nunique() == 3
    comparison._open.cache_clear()
    del found, explorer
    gc.collect()
    assert not fetched.exists()
