"""Everything against a real `mlflow server`: SQLite store, artifacts through its HTTP proxy."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.pyfunc import load_model

from stages.tracking import registry
from stages.tracking.gate import Gate
from stages.tracking.registry import Comparison, Entry, Registration
from stages.tracking.store import Store

from .conftest import pictures, validation
from .server import Server

pytestmark = pytest.mark.slow


def test_register_fills_a_server_and_its_champion_comes_back_over_http(
    running_server: Server,
    root: Path,
    tmp_path: Path,
    make_entry: Callable[..., Entry],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running_server.uri)
    store = Store.of_repository(root)
    report = tmp_path / "comparison.md"
    report.write_text("# Comparison")
    entries = [make_entry("a", val=0.3, seed=1), make_entry("b", val=0.6, seed=2)]

    def register() -> Registration:
        comparison = Comparison({"comparison.md": report})
        return registry.register(
            store,
            "demo",
            "served-classifier",
            entries,
            comparison,
            train_images=pictures(3),
            val=validation(),
            gate=Gate(),
        )

    first = register()
    assert register() == first
    client = store.client()
    champion = client.get_model_version_by_alias("served-classifier", "champion")
    run = client.get_run(champion.run_id)
    assert (champion.tags["model"], run.data.tags["replayed"]) == ("b", "true")
    assert run.info.artifact_uri.startswith("mlflow-artifacts:"), "through the server, not past it"
    assert {file.path for file in client.list_artifacts(champion.tags["comparison_run_id"])} == {"comparison.md"}
    with store.as_default():
        model = load_model("models:/served-classifier@champion")
    assert model.predict(pictures(2)).shape == (2, 3)
    assert not (root / "mlartifacts").exists()
