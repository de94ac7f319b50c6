"""A training in a process of its own: python -m tests.models.training_process MODEL FOLDER

Trains a small network for three epochs of 70 steps, prints a line per report, and writes the weights into FOLDER at the
end. Checkpoints go to FOLDER/checkpoints after every report.
"""

import json
import sys
from pathlib import Path

from stages.training import fit
from stages.training.checkpoints import Checkpoints
from stages.training.progress import Reporter
from tests.models.small import CPU, classifier, tinted

EPOCHS = 3
STEPS_PER_EPOCH = 70


def main(model: str, folder: Path) -> None:
    dropout = {"vit_scratch": {"dropout": 0.1}, "mobilenet_transfer": {"dropout": 0.2}}  # random numbers of their own
    small = classifier(model, batch_size=8, **dropout.get(model, {}))
    # So short that every report finds a checkpoint due.
    checkpoints = Checkpoints(folder / "checkpoints", small.settings.model_dump(), minutes=1e-6)
    history = checkpoints.notes.setdefault("history", [])
    reporter = Reporter(
        on_step=lambda step, metrics: print(f"step {step} {metrics['train_loss']!r}", flush=True),
        on_epoch=lambda epoch, metrics: history.append(metrics),
    )
    train, val = tinted(8 * STEPS_PER_EPOCH - 3), tinted(40, seed=1)
    fit(small, train, val, epochs=EPOCHS, compute=CPU, reporter=reporter, checkpoints=checkpoints)
    small.save_weights(folder)
    (folder / "history.json").write_text(json.dumps(history))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
