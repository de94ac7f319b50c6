"""Trainings that are killed resume, and end with the bits they would have had."""

import hashlib
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models.small import SMALL
from tests.models.training_process import EPOCHS, STEPS_PER_EPOCH

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STEPS = EPOCHS * STEPS_PER_EPOCH


def train(model: str, folder: Path, kill_at: int | None = None) -> str:
    """Run a training; kill -9 it when it reports step `kill_at` or a later one. Returns what it printed."""
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.models.training_process", model, str(folder)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    printed = ""
    assert process.stdout
    for line in process.stdout:
        printed += line
        step = re.match(r"step (\d+)", line)
        if kill_at and step and int(step[1]) >= kill_at:
            process.kill()
            break
    printed += process.stdout.read()
    assert (process.wait(timeout=60) == 0) == (kill_at is None), printed
    return printed


def results(folder: Path) -> tuple[str, str]:
    """Hash of the weights, and the history of all epochs."""
    (weights,) = folder.glob("weights.*")
    return hashlib.sha256(weights.read_bytes()).hexdigest(), (folder / "history.json").read_text()


@pytest.mark.parametrize("model", SMALL)
def test_a_killed_training_ends_with_the_bits_of_an_uninterrupted_one(model, tmp_path):
    whole = train(model, tmp_path / "whole")
    # Anywhere in the first and the second sitting; the seed is printed where the test fails.
    seed = random.randrange(10**6)
    first, second = sorted(random.Random(seed).sample(range(20, STEPS - 20), 2))
    killed = tmp_path / "killed"
    train(model, killed, kill_at=first)
    train(model, killed, kill_at=second)
    last = train(model, killed)
    assert (resumed := re.search(rf"resuming from the checkpoint after step (\d+) of {STEPS}", last)), (seed, last)
    assert int(resumed[1]) >= 20
    # It did resume: the first steps were not trained again, and the later ones showed the same losses, bit for bit.
    assert "step 20 " not in last
    assert last.splitlines()[-1] == whole.splitlines()[-1]
    assert results(killed) == results(tmp_path / "whole"), seed


def test_a_training_killed_at_its_very_end_needs_no_further_step(tmp_path):
    train("vit_scratch", tmp_path)
    expected = results(tmp_path)
    (tmp_path / "weights.safetensors").unlink()  # as if it had been killed before this was written
    last = train("vit_scratch", tmp_path)
    assert f"resuming from the checkpoint after step {STEPS} of {STEPS}" in last
    assert not re.search(r"^step", last, re.MULTILINE)
    assert results(tmp_path) == expected
