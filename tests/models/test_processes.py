"""Two processes that share a training end where one alone ends, but for rounding.

Each process runs this file: python -m tests.models.test_processes FOLDER PROCESSES CASE ... Started by torchrun, it
trains all cases in turn; started alone, it starts the other processes itself, and takes one case.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stages.common.settings import process_rank
from stages.models.vit_scratch.model import VitScratch
from stages.training import fit
from tests.models.conftest import Reports
from tests.models.small import CPU, settings_of, tinted

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
SCRIPT = ("-m", "tests.models.test_processes")
EPOCHS = 2
VAL = 300  # images: a second batch of validation, so that a second process has something to measure


class Sgd(VitScratch):
    """Its steps are as long as its gradients: Muon and Adam would hide a wrong factor."""

    def optimizer(self, precision: str) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.body.parameters(), lr=0.05)


# Network, number of images, batch size: more than 20 batches, so that there are reports within. Two processes share
# batches of 5 as 3 and 2.
CASES = {
    "uneven": (Sgd, 105, 5),
    "last batch uneven": (Sgd, 125, 6),
    "last batch smaller than the processes": (Sgd, 121, 6),
    "shipped optimizer": (VitScratch, 103, 5),
}


def train(folder: Path, name: str, processes: int) -> None:
    """Train one case, this process's part; leaves its weights in `folder`, rank 0 what it reported, too."""
    kind, images, batch_size = CASES[name]
    # Without dropout, which draws for each process apart.
    settings = settings_of("vit_scratch", batch_size=batch_size, label_smoothing=0.1, mixup=0.3)
    compute = CPU.model_copy(update={"devices": processes, "strategy": "ddp" if processes > 1 else "auto"})
    kind.configure(compute)
    classifier, reports = kind(settings, num_classes=4, image_size=32), Reports()
    options = {"compute": compute, "reporter": reports.reporter, "learning": True}
    fit(classifier, tinted(images), tinted(VAL, seed=1), epochs=EPOCHS, **options)
    weights = folder / name / f"process {process_rank()}"
    weights.mkdir(parents=True)
    classifier.save_weights(weights)
    if process_rank() == 0:
        (folder / name / "reports.json").write_text(json.dumps(reports.epochs + reports.steps + reports.learning))


def run(*arguments: str) -> None:
    """Python with these arguments, as from a shell; its errors where it fails."""
    launched = {"RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    environment = {name: value for name, value in os.environ.items() if name not in launched}
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
    assert len(found) > EPOCHS + 10, "no report within an epoch"
    for (number, alone), (same, shared) in zip(expected, found, strict=True):
        assert number == same
        assert shared == pytest.approx(alone, rel=1e-4)
    weights = load_file(one / "process 0/weights.safetensors")
    first, second = (load_file(two / f"process {rank}/weights.safetensors") for rank in (0, 1))
    for name, alone in weights.items():
        assert first[name].equal(second[name]), f"the two processes disagree about {name}"
        # Softmax ignores a bias of the keys: its gradient is rounding error, which Adam magnifies.
        assert first[name].sub(alone).abs().max() < (1e-3 if name.endswith("key.bias") else 1e-5), name


@pytest.mark.parametrize("case", CASES)
def test_two_processes_end_where_one_ends(together, tmp_path, case):
    train(tmp_path, case, processes=1)
    assert_the_same(tmp_path / case, together / case)


def test_a_training_starts_its_other_processes_itself(tmp_path):
    run(*SCRIPT, str(tmp_path / "two"), "2", "uneven")
    train(tmp_path / "one", "uneven", processes=1)
    assert_the_same(tmp_path / "one/uneven", tmp_path / "two/uneven")


if __name__ == "__main__":
    for name in sys.argv[3:]:
        train(Path(sys.argv[1]), name, int(sys.argv[2]))
