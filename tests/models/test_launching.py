"""Who starts the processes of a training, and what is refused before it starts."""

import os

import numpy as np
import pytest

from stages.common.errors import UserError
from stages.common.settings import Compute, process_rank, started_processes
from stages.models.base import Examples, Reporter
from stages.models.vit_scratch.model import VitScratch


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in [*os.environ]:
        if name.startswith("SLURM_") or name in ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name)


SRUN = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8"}
ALLOCATION = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8"}


@pytest.mark.parametrize(
    ("environment", "is_first", "started"),
    [
        ({}, True, 1),
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "8"}, True, 8),
        ({"RANK": "8", "LOCAL_RANK": "0", "WORLD_SIZE": "16"}, False, 16),  # torchrun on the second machine
        (SRUN, False, 8),
        (ALLOCATION, True, 1),
        # Lightning's own launcher in a shell that SLURM gave: the variables of the shell say 0 to all.
        (ALLOCATION | {"NODE_RANK": "0", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}, False, 2),
        ({"NODE_RANK": "1"}, False, 1),
    ],
)
def test_one_process_is_the_first(monkeypatch, environment, is_first, started):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (process_rank() == 0) == is_first
    assert started_processes() == started


@pytest.fixture
def fit(settings_of):
    def start(count: int = 8, compute: Compute | None = None, **changes) -> None:
        small = {"embed_dim": 24, "depth": 1, "num_heads": 2, "patch_size": 8, "batch_size": 4}
        examples = Examples(np.zeros((count, 32, 32, 3), np.uint8), np.arange(count) % 4)
        classifier = VitScratch(settings_of("vit_scratch", **small | changes), num_classes=4, image_size=32)
        compute = compute or Compute(accelerator="cpu", precision="float32")
        classifier.fit(examples, examples, epochs=1, compute=compute, reporter=Reporter.silent())

    return start


def test_several_machines_are_not_waited_for(fit):
    with pytest.raises(UserError, match=r"num_nodes = 2: start the training on every machine"):
        fit(compute=Compute(accelerator="cpu", num_nodes=2))


def test_processes_that_would_each_train_the_whole_model_are_refused(fit, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(UserError, match=r"2 processes were started, but compute.devices = 1 .* make 1"):
        fit()


@pytest.mark.parametrize("count", [8, 9])
def test_a_last_batch_of_one_picture_may_be_mixed(fit, count):
    fit(count, mixup=0.5)
