"""What classifiers with a pretrained backbone share: `finetune: full` trains all of it, `head` a new head alone."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from .classifier import Classifier, Examples, Reporter
from .settings import Compute

if TYPE_CHECKING:
    from .checkpoints import Checkpoints
    from .frozen import FeatureCache


class FinetunedClassifier(Classifier):
    """Stands before an engine's class among a classifier's parents. Its settings have `finetune`, full or head."""

    @abstractmethod
    def backbone_facts(self) -> dict[str, Any]:
        """All that decides the features beside data and code: weights, size of the pictures, precision."""

    @abstractmethod
    def features(self, images: np.ndarray) -> np.ndarray:
        """What the head sees: images (B, H, W, 3) uint8 to (B, D) float32."""

    @abstractmethod
    def set_head(self, weight: np.ndarray, bias: np.ndarray) -> None:
        """Put weight (D, C) and bias (C,), both float32, into the head; features are asked for no more."""

    def fit(
        self,
        train: Examples,
        val: Examples,
        *,
        epochs: int,
        compute: Compute,
        reporter: Reporter,
        checkpoints: "Checkpoints | None" = None,
        features: "FeatureCache | None" = None,
    ) -> None:
        if self.settings.finetune == "full":  # type: ignore[attr-defined]
            super().fit(train, val, epochs=epochs, compute=compute, reporter=reporter, checkpoints=checkpoints)  # type: ignore[safe-super]
            return
        from .frozen import fit_head

        self.resolve(compute)
        self.resolved["head_C"] = fit_head(self, train, val, reporter, features)
