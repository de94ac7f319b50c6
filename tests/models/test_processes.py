"""Two processes that share a training end where one alone ends, but for rounding."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.models.parallel_training import CASES, EPOCHS, train

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
SCRIPT = ("-m", "tests.models.parallel_training")


def run(*arguments: str) -> None:
    """Python with these arguments, as from a shell; its errors where it fails."""
    foreign = {"RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr[-5000:]


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    """All cases trained by two processes, those that torchrun starts."""
    folder = tmp_path_factory.mktemp("together")
    run(*TORCHRUN, "--log-dir", str(folder / "logs"), *SCRIPT, str(folder), "2", *CASES)
    return folder


def assert_the_same(one: Path, two: Path) -> None:
    """Reports and weights of a training by one process and by two."""
    expected, found = (json.loads((folder / "reports.json").read_text()) for folder in (one, two))
    assert [(kind, number) for kind, number, _ in found] == [(kind, number) for kind, number, _ in expected]
    assert [kind for kind, _, _ in found].count("epoch") == EPOCHS
    assert len(found) > EPOCHS, "no report within an epoch"
    for (_, _, alone), (_, _, shared) in zip(expected, found, strict=True):
        assert shared == pytest.approx(alone, rel=1e-4)
    weights = load_file(one / "process 0/weights.safetensors")
    first, second = (load_file(two / f"process {rank}/weights.safetensors") for rank in (0, 1))
    for name, alone in weights.items():
        assert first[name].equal(second[name]), f"the two processes disagree about {name}"
        assert first[name].sub(alone).abs().max() < 1e-5, name


@pytest.mark.parametrize("case", CASES)
def test_two_processes_end_where_one_ends(together, tmp_path, case):
    train(tmp_path, case, processes=1)
    assert_the_same(tmp_path / case, together / case)


def test_a_training_starts_its_other_processes_itself(tmp_path):
    run(*SCRIPT, str(tmp_path / "two"), "2", "uneven")
    train(tmp_path / "one", "uneven", processes=1)
    assert_the_same(tmp_path / "one/uneven", tmp_path / "two/uneven")
