"""The stage `register`, fed with what the stages before it write."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from mlflow.pyfunc import load_model

from stages import evaluate, predict, register, robustness
from stages.common import paths
from stages.common.errors import UserError
from stages.data import dataset
from stages.data.dataset import Prepared
from stages.inference.exported import CHOSEN, DESCRIPTION
from stages.tracking.package import image_hashes
from stages.tracking.store import Store

from .conftest import CLASSES, REFERENCE_SEED, export, gate_split, random_images, write_training

SHIPPED = Path(__file__).parents[2] / "params.yaml"
METRICS = paths.METRICS / "tiny.json"
TRAINED = f"tiny/{REFERENCE_SEED}"
ROWS = {"val": slice(0, 298), "gate": slice(298, 600), "test": slice(600, 1000)}  # of gate_split()


@pytest.fixture
def repository(root, monkeypatch):
    """With everything that the stage needs, for one model, `tiny`."""
    monkeypatch.chdir(root)
    content = yaml.safe_load(SHIPPED.read_text())
    content["models"] = {"tiny": content["models"]["vit_scratch"]}
    content["export"]["int8"] = {}
    content["registry"]["square"] = "pad"
    content["data"]["source"] = "demo"
    paths.PARAMS.write_text(yaml.safe_dump(content))
    own = gate_split()
    dataset.write(
        paths.PREPARED,
        source="demo",
        class_names=CLASSES,
        superclass_names=["thing", "being"],
        superclass_of_class=[0, 1, 0],
        splits={
            "train": (random_images(9), np.arange(9) % 3),
            **{name: (own.images[rows], own.labels[rows]) for name, rows in ROWS.items()},
        },
        facts={},
    )
    for folder in (paths.ONNX, paths.RUNS):
        (folder / TRAINED).mkdir(parents=True)
    exported = export(root / paths.ONNX / TRAINED, "tiny", REFERENCE_SEED)
    (paths.ONNX / TRAINED / DESCRIPTION).write_text(json.dumps(exported.description))
    chosen = {"seed": REFERENCE_SEED, "val_top1": {str(REFERENCE_SEED): 0.8}}
    (paths.ONNX / "tiny" / CHOSEN).write_text(json.dumps(chosen))
    write_training(paths.RUNS / TRAINED, "tiny", exported.description["weights_sha256"])
    monkeypatch.setattr(sys, "argv", ["stage", "tiny"])
    np.savez(paths.DUPLICATES, test_similarity=np.zeros(len(own.labels[ROWS["test"]])))
    for stage in (predict, robustness, evaluate):
        stage.main()
    for file in (paths.COMPARISON, paths.COMPARISON_DATA, paths.CLAIMS, paths.ROBUSTNESS_METRICS):
        file.write_text("{}")
    return root


def test_what_was_measured_and_the_file_it_was_measured_on_make_the_version(repository):
    register.main()
    metrics = json.loads(METRICS.read_text())
    with Store.of_repository(repository).exclusive() as client:
        model = load_model("models:/demo-classifier@champion")
    metadata = model.metadata.metadata
    exported = json.loads((paths.ONNX / TRAINED / DESCRIPTION).read_text())
    assert metadata["ood"] == {key: metrics["ood"][key] for key in ("score", "threshold", "reason")}
    assert metadata["temperature"] == metrics["calibration"]["temperature"]
    assert metadata["conformal"] == {key: metrics["conformal"][key]["threshold"] for key in ("90", "95")}
    assert metadata["metrics"] == metrics
    assert (metadata["square"], metadata["image_size"], metadata["precision"]) == ("pad", 4, "float32")
    probabilities = model.predict(gate_split().images)
    right = probabilities.argmax(axis=1) == gate_split().labels
    for split in ("val", "test"):
        assert right[ROWS[split]].mean() == pytest.approx(metrics[split]["top1"], abs=1e-6)
    # What a later candidate is compared on, and what not: neither training images nor those of val.
    prepared = Prepared.open(paths.PREPARED)
    assert (register._entry("tiny", prepared, "pad").right == right[ROWS["gate"]]).all()
    images = np.concatenate([prepared.split(split)[0] for split in ("train", "val")])
    assert (np.load(next(repository.rglob("seen_images.npy"))) == image_hashes(images)).all()
    report = json.loads(paths.REGISTERED_MODEL.read_text())
    assert report["models"]["tiny"] == {
        "val_top1": metrics["val"]["top1"],
        "precision": "float32",
        "onnx_sha256": exported["files"]["float32"]["sha256"],
        "weights_sha256": exported["weights_sha256"],
        "data_sha256": metadata["data_sha256"],
    }
    version = client.get_model_version_by_alias("demo-classifier", "champion")
    low, high = (metrics["test"][key] for key in ("top1_low", "top1_high"))
    assert f"(95 % interval {low:.2%} to {high:.2%}, n = 400)" in version.description


@pytest.mark.parametrize(
    ("file", "change", "line"),
    [
        (
            f"data/runs/{TRAINED}/run.json",
            (b'sha256": "', b'sha256": "0'),
            "different weights: run `dvc repro export@tiny`",
        ),
        (f"data/onnx/{TRAINED}/model.onnx", (b"images", b"others"), "changed .*: run `dvc repro --force export@tiny`"),
        (f"data/onnx/{TRAINED}/model.onnx", None, "No such file .*: run `dvc repro --force export@tiny`"),
        (f"data/onnx/{TRAINED}/export.json", None, "cannot read .*export.json .*: run `dvc repro export@tiny`"),
        ("reports/metrics/tiny.json", (b"top1_low", b"low"), "lacks 'top1_low': run `dvc repro evaluate@tiny`"),
        ("reports/comparison.md", None, "comparison.md is missing: run `dvc repro compare`"),
    ],
)
def test_what_does_not_fit_together_is_one_line_before_anything_is_registered(repository, client, file, change, line):
    path = repository / file
    path.write_bytes(path.read_bytes().replace(*change)) if change else path.unlink()
    with pytest.raises(UserError, match=line):
        register.main()
    assert not client.search_registered_models()
    assert not paths.REGISTERED_MODEL.exists()
