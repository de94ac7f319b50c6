"""A packaged model (models from code) with the contract of the real ones, that tells pictures by their mean colour."""

import mlflow
import numpy as np
from mlflow.pyfunc import PythonModel, PythonModelContext

SIZE = 8
COLOURS = np.array([[220, 30, 30], [30, 200, 30], [30, 60, 220], [250, 250, 250], [5, 5, 5], [230, 220, 40]])


class ColourModel(PythonModel):
    def load_context(self, context: PythonModelContext) -> None:
        pass

    def shrink(self, images: np.ndarray) -> np.ndarray:
        rows = np.arange(SIZE) * images.shape[1] // SIZE
        columns = np.arange(SIZE) * images.shape[2] // SIZE
        return images[:, rows][:, :, columns]

    def predict(self, context: PythonModelContext, model_input: np.ndarray, params: dict | None = None) -> np.ndarray:
        means = self.shrink(model_input).mean(axis=(1, 2))
        logits = -np.linalg.norm(means[:, np.newaxis] - COLOURS, axis=2) / 30
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


mlflow.models.set_model(ColourModel())
