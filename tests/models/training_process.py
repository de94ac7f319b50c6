"""A training in a process of its own: python -m tests.models.training_process MODEL FOLDER

Trains a small network for three epochs of 70 steps, prints a line per report, and writes the weights into FOLDER at the
end. Checkpoints go to FOLDER/checkpoints after every report.
"""

import json
import sys
from pathlib import Path

import numpy as np

from stages.common.settings import Compute
from stages.models import classifier_class, params
from stages.models.base import Examples, Reporter
from stages.training.checkpoints import Checkpoints

EPOCHS = 3
STEPS_PER_EPOCH = 70
SMALL = {
    "vit_scratch": {"embed_dim": 24, "depth": 1, "num_heads": 2, "patch_size": 8, "dropout": 0.1},
    "vit_transfer": {"backbone": "test_vit", "weights": "random", "image_size": 32},
    "mobilenet_transfer": {"variant": "small", "weights": "random", "image_size": 32},
}


def examples(count: int, seed: int) -> Examples:
    """Noise whose class is its tint: images (count, 32, 32, 3) uint8 of 4 classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    tints = np.array([[120, 0, 0], [0, 120, 0], [0, 0, 120], [0, 0, 0]], np.uint8)
    return Examples(rng.integers(0, 100, (count, 32, 32, 3), dtype=np.uint8) + tints[labels][:, None, None], labels)


def main(model: str, folder: Path) -> None:
    shipped = params.read().model(model)
    settings = type(shipped).model_validate(shipped.model_dump() | SMALL[model] | {"batch_size": 8})
    compute = Compute(accelerator="cpu", precision="float32", threads=1)
    kind = classifier_class(model)
    kind.configure(compute)
    classifier = kind(settings, num_classes=4, image_size=32)
    # So short that every report finds a checkpoint due.
    checkpoints = Checkpoints(folder / "checkpoints", settings.model_dump(), minutes=1e-6)
    history = checkpoints.notes.setdefault("history", [])
    reporter = Reporter(
        on_step=lambda step, metrics: print(f"step {step} {metrics['train_loss']!r}", flush=True),
        on_epoch=lambda epoch, metrics: history.append(metrics),
    )
    train, val = examples(8 * STEPS_PER_EPOCH - 3, seed=0), examples(40, seed=1)
    classifier.fit(train, val, epochs=EPOCHS, compute=compute, reporter=reporter, checkpoints=checkpoints)
    classifier.save_weights(folder)
    (folder / "history.json").write_text(json.dumps(history))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
