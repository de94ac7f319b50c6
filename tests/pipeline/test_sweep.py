"""`make sweep` through DVC's real queue: two workers, a setting that cannot be trained, a champion that stays."""

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing

import pytest

from .conftest import PATIENCE, Clone

pytestmark = pytest.mark.slow


def make(clone: Clone, *arguments: str) -> subprocess.CompletedProcess[str]:
    # READY: the environment that runs the tests will do.
    command = ["make", "READY=", *arguments]
    return subprocess.run(
        command, cwd=clone.root, env=clone.environment, text=True, capture_output=True, timeout=PATIENCE
    )


def registered_versions(clone: Clone) -> int:
    with closing(sqlite3.connect(clone.root / "mlflow.db")) as database:
        return database.execute("SELECT count(*) FROM model_versions").fetchone()[0]


@pytest.fixture
def queue(clone: Clone) -> Iterator[None]:
    """Leaves nothing running behind."""
    yield
    subprocess.run(["dvc", "queue", "stop", "--kill"], cwd=clone.root, env=clone.environment, capture_output=True)


def test_a_sweep_ranks_what_could_be_trained_and_registers_nothing(clone: Clone, queue: None):
    champion = (clone.root / "reports/registered_model.json").read_text()
    versions = registered_versions(clone)
    clone.run("dvc", "repro", "evaluate@vit_scratch")  # other tests may have changed the code
    before = clone.run("git", "status", "--porcelain")
    # embed_dim must be a multiple of num_heads, 3.
    done = make(clone, "sweep", "JOBS=2", "NAME=widths", "SWEEP=-S 'models.vit_scratch.embed_dim=12,25,36'")
    assert done.returncode != 0
    assert "sweep: 1 of 3 experiments failed: widths-2; `dvc queue logs NAME` says why" in done.stderr, done.stdout
    assert "embed_dim = 25 must be a multiple of num_heads = 3" in clone.run("dvc", "queue", "logs", "widths-2")
    table = (clone.root / "sweep/sweep.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith(("| 12 |", "| 25 |", "| 36 |"))]
    assert sorted(row.split("|")[1].strip() for row in rows) == ["12", "36"]
    assert not any("?" in row for row in rows), "the minutes come from DVC's cache"
    assert (clone.root / "sweep/sweep.png").stat().st_size > 10_000
    # Not even params.yaml and dvc.lock are touched.
    assert clone.run("git", "status", "--porcelain") == before
    assert (clone.root / "reports/registered_model.json").read_text() == champion
    assert registered_versions(clone) == versions
