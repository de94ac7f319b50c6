"""Pickles planted in a package; whoever reads one leaves a mark, a folder that the variable BOMB names."""

import json
import os
import pickle
from hashlib import sha256
from pathlib import Path

import yaml


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["BOMB"],)


def as_weights(package: Path) -> None:
    """In the place of the weights, with hashes that agree."""
    folder = package / "artifacts" / "model"
    content = pickle.dumps(_Bomb())
    (folder / "weights.safetensors").write_bytes(content)
    description = json.loads((folder / "classifier.json").read_text())
    description["weights_sha256"] = sha256(content).hexdigest()
    (folder / "classifier.json").write_text(json.dumps(description))
    about = yaml.safe_load((package / "MLmodel").read_text())
    about["metadata"]["weights_sha256"] = description["weights_sha256"]
    (package / "MLmodel").write_text(yaml.safe_dump(about))


def as_python_model(package: Path) -> None:
    """As the pickled model that MLflow's own layout knows, in the place of the code."""
    (package / "python_model.pkl").write_bytes(pickle.dumps(_Bomb()))
    description = yaml.safe_load((package / "MLmodel").read_text())
    flavor = description["flavors"]["python_function"]
    del flavor["model_code_path"]
    flavor |= {"python_model": "python_model.pkl", "loader_module": "mlflow.pyfunc.model"}
    (package / "MLmodel").write_text(yaml.safe_dump(description))
