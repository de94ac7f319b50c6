"""A training that several processes share: python -m tests.models.parallel_training FOLDER PROCESSES CASE ...

Each process leaves in FOLDER/CASE the weights it ended with; rank 0 what it reported, too. Started by torchrun, it
trains all cases in turn; started alone, it starts the other processes itself, and takes one case.
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import torch

from stages.common.settings import process_rank
from stages.models.vit_scratch.model import VitScratch
from stages.training import fit
from stages.training.progress import Reporter
from tests.models.small import CPU, settings_of, tinted

EPOCHS = 2
VAL = 300  # images: a second batch of validation, so that a second process has something to measure


class Case(NamedTuple):
    """How many images to train on, in which batches: more than 20 of them, so that there are reports within."""

    images: int
    batch_size: int
    optimizer: str = "sgd"


# Two processes share batches of 5 as 3 and 2.
CASES = {
    "even": Case(126, 6),
    "uneven": Case(105, 5),
    "last batch uneven": Case(125, 6),
    "last batch smaller than the processes": Case(121, 6),
    "shipped optimizer": Case(103, 5, "shipped"),
}


class Sgd(VitScratch):
    """Its steps are as long as its gradients: Muon and Adam would hide a wrong factor."""

    def optimizer(self, precision: str) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.body.parameters(), lr=0.05)


def train(folder: Path, name: str, processes: int) -> None:
    """Train one case, this process's part."""
    case = CASES[name]
    # Without dropout, which draws for each process apart.
    settings = settings_of("vit_scratch", batch_size=case.batch_size, label_smoothing=0.1, mixup=0.3)
    compute = CPU.model_copy(update={"devices": processes, "strategy": "ddp" if processes > 1 else "auto"})
    kind = {"sgd": Sgd, "shipped": VitScratch}[case.optimizer]
    kind.configure(compute)
    classifier = kind(settings, num_classes=4, image_size=32)
    reports: list[tuple[str, int, dict[str, float]]] = []
    reporter = Reporter(
        on_step=lambda step, metrics: reports.append(("step", step, metrics)),
        on_epoch=lambda epoch, metrics: reports.append(("epoch", epoch, metrics)),
    )
    fit(classifier, tinted(case.images), tinted(VAL, seed=1), epochs=EPOCHS, compute=compute, reporter=reporter)
    weights = folder / name / f"process {process_rank()}"
    weights.mkdir(parents=True)
    classifier.save_weights(weights)
    if process_rank() == 0:
        (folder / name / "reports.json").write_text(json.dumps(reports))


if __name__ == "__main__":
    for name in sys.argv[3:]:
        train(Path(sys.argv[1]), name, int(sys.argv[2]))
