"""Pickles planted in a package; whoever reads one leaves a mark, a folder that the variable BOMB names."""

import os
import pickle
from hashlib import sha256
from pathlib import Path

import yaml


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["BOMB"],)


def as_weights(package: Path) -> None:
    """In the place of the ONNX file, with a hash that agrees."""
    content = pickle.dumps(_Bomb())
    (package / "artifacts" / "model.onnx").write_bytes(content)
    description = yaml.safe_load((package / "MLmodel").read_text())
    description["metadata"]["onnx_sha256"] = sha256(content).hexdigest()
    (package / "MLmodel").write_text(yaml.safe_dump(description))


def as_python_model(package: Path) -> None:
    """As the pickled model that MLflow's own layout knows, in the place of the code."""
    (package / "python_model.pkl").write_bytes(pickle.dumps(_Bomb()))
    description = yaml.safe_load((package / "MLmodel").read_text())
    flavor = description["flavors"]["python_function"]
    del flavor["model_code_path"]
    flavor |= {"python_model": "python_model.pkl", "loader_module": "mlflow.pyfunc.model"}
    (package / "MLmodel").write_text(yaml.safe_dump(description))
