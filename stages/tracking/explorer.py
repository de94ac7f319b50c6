"""What the app needs to show a comparison picture by picture: all test pictures, and every model's answer to each."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = "explorer"


@dataclass(frozen=True)
class Explorer:
    """Test pictures and answers, not yet written.

    dataset: source, class_names, superclass_names, superclass_of_class.
    data_sha256: content hash of the prepared set.
    images, labels: files of arrays (N, H, W, 3) uint8 and (N,) int64.
    probabilities: of each model, calibrated, (N, C) between 0 and 1.
    """

    dataset: Mapping[str, Any]
    data_sha256: str
    images: Path
    labels: Path
    probabilities: Mapping[str, np.ndarray]

    @property
    def sha256(self) -> str:
        """Hash of all that `write` would write; the pictures, most of it, are known by the hash of their set."""
        about = {**self.dataset, "models": self.models, "data_sha256": self.data_sha256}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for array in self.probabilities.values():
            digest.update(_stored(array).tobytes())
        return digest.hexdigest()

    @property
    def models(self) -> list[str]:
        """Names, in the order of the comparison."""
        return list(self.probabilities)

    def write(self, folder: Path) -> None:
        """Write into `folder`, which must exist. The pictures are links: they are copied once, into the store."""
        for name, file in (("images.npy", self.images), ("labels.npy", self.labels)):
            (folder / name).symlink_to(file.resolve())
        for model, array in self.probabilities.items():
            np.save(folder / f"probabilities-{model}.npy", _stored(array), allow_pickle=False)
        content = {**self.dataset, "models": self.models}
        (folder / "dataset.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _stored(probabilities: np.ndarray) -> np.ndarray:
    """As float16; of classes that this would make equal the likeliest one stays ahead, by the smallest step."""
    stored = probabilities.astype(np.float16)
    likeliest = probabilities.argmax(axis=1)
    rows = np.flatnonzero(stored.argmax(axis=1) != likeliest)
    stored[rows, likeliest[rows]] = np.nextafter(stored[rows, likeliest[rows]], np.float16(2))
    return stored
