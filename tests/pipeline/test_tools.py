"""`make sweep` through DVC's real queue, and the benchmarks of models that the pipeline trained and registered."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest
import yaml

from .conftest import Clone

pytestmark = pytest.mark.slow


def registered_versions(clone: Clone) -> int:
    with closing(sqlite3.connect(clone.root / "mlflow.db")) as database:
        return database.execute("SELECT count(*) FROM model_versions").fetchone()[0]


@pytest.fixture
def queue(clone: Clone) -> Iterator[None]:
    """Leaves nothing running behind."""
    yield
    subprocess.run(["dvc", "queue", "stop", "--kill"], cwd=clone.root, env=clone.environment, capture_output=True)


def test_a_sweep_ranks_what_could_be_trained_and_registers_nothing(clone: Clone, queue: None):
    versions = registered_versions(clone)
    before = clone.run("git", "status", "--porcelain")
    sweep = "SWEEP=-S 'models.vit_scratch.embed_dim=12,25,36'"  # must be a multiple of num_heads, 3
    # READY: the environment that runs the tests will do.
    said = clone.run("make", "READY=", "sweep", "JOBS=2", "NAME=widths", sweep, status=2)
    assert "sweep: 1 of 3 experiments failed: widths-2; `dvc queue logs NAME` says why" in said
    assert "embed_dim = 25 must be a multiple of num_heads = 6" in clone.run("dvc", "queue", "logs", "widths-2")
    table = (clone.root / "sweep/sweep.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith(("| 12 |", "| 25 |", "| 36 |"))]
    assert sorted(row.split("|")[1].strip() for row in rows) == ["12", "36"]
    assert not any("nan" in row for row in rows), "the minutes come from DVC's cache"
    assert (clone.root / "sweep/sweep.png").stat().st_size > 10_000
    # Not even params.yaml and dvc.lock are touched.
    assert clone.run("git", "status", "--porcelain") == before
    assert registered_versions(clone) == versions


def test_training_and_serving_are_measured_through_real_processes(clone: Clone, tmp_path):
    copy = clone.copy(tmp_path / "copy")
    content = yaml.safe_load((copy.root / "params.yaml").read_text())
    content["models"] = {"vit_scratch": content["models"]["vit_scratch"]}
    content["export"]["int8"] = {}
    (copy.root / "params.yaml").write_text(yaml.safe_dump(content))
    left = sorted((copy.root / "data/scratch").iterdir())
    said = copy.run(sys.executable, "-m", "stages.tools.bench", "--rounds", "1", "--steps", "2", "--images", "20")
    files = [copy.root / f"reports/{name}.json" for name in ("benchmark", "time_to_accuracy", "serving")]
    training, accuracy, serving = (json.loads(file.read_text()) for file in files)
    baseline, ours, *_ = training["models"]["vit_scratch"].values()
    assert baseline[0]["num_parameters"] == ours[0]["num_parameters"]
    assert {"baseline", "ours"} <= accuracy["ways"].keys()
    assert {len(run["curve"]) > 0 for way in accuracy["ways"].values() for run in way.values()} == {True}
    (measured,) = serving["models"]["vit_scratch"]["rounds"]
    assert measured.keys() == {"framework", "onnx", "http", "files", "few"}
    assert min(min(each.values()) for each in measured.values()) > 0
    assert measured["onnx"]["memory_mb"] < measured["framework"]["memory_mb"]
    assert "of 5 goals are met" in said
    assert sorted((copy.root / "data/scratch").iterdir()) == left
