"""The stage `compare` on made-up predictions, and the app that reads what it writes."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image

from gui import comparison
from gui.comparison import LoggedComparison
from gui.registry import Version
from stages import compare
from stages.common import paths
from stages.common.errors import UserError
from stages.common.files import write_json
from stages.data import dataset
from stages.data.corruptions import CORRUPTIONS, SEVERITIES
from stages.evaluation.summary import Predictions, summarize
from stages.inference.onnx_model import softmax
from stages.report import figures
from stages.tracking import explorer
from tests.report.conftest import DATASET, PROFILE, RUN

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ["red_apple", "green_leaf", "blue_sea", "white_rabbit", "black_cat", "yellow_lemon"]
SUPERCLASSES = ["plants", "things & waters", "animals"]
SUPERCLASS_OF = [0, 0, 1, 2, 2, 0]
SIZE = 8  # pixels
MODELS = {  # as params.yaml has them: the right class's logit over the noise, ms per image, seconds of training
    "vit_scratch": (1.0, 5.0, 246.0),
    "vit_transfer": (4.0, 12.7, 520.0),
    "mobilenet_transfer": (2.5, 10.2, 406.0),
}
COUNTS = {"train": 60, "val": 60, "test": 120}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stage wrote its reports, and `register` what the app needs beside them."""
    work = tmp_path_factory.mktemp("comparison")
    shutil.copy(ROOT / paths.PARAMS, work)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        write()
    return work / paths.REPORTS


@pytest.fixture(scope="module")
def compared(run: Path) -> LoggedComparison:
    """As the app opens it: by the tag of a version, from the MLflow run that holds the files."""
    uri = f"sqlite:///{run.parent}/mlflow.db"
    client = MlflowClient(tracking_uri=uri)
    run_id = client.create_run(client.create_experiment("cifar100", (run.parent / "a").as_uri())).info.run_id
    client.log_artifacts(run_id, str(run))
    return comparison.of(Version(uri, "cifar100-classifier", 1, 0, {comparison.RUN_TAG: run_id}))


def test_every_figure_is_drawn(run: Path) -> None:
    sizes = {file.stem: Image.open(file).size for file in (run / "plots").iterdir()}
    by_model = {f"superclass_confusion_{model}" for model in MODELS}
    assert set(sizes) == set(figures.TITLES) | by_model | {"contact_sheet", "corruptions", "mistakes", "suspects"}
    assert all(width > 500 and height > 150 for width, height in sizes.values())
    report = (run / "comparison.md").read_text()
    assert all(f"(plots/{name}.png)" in report for name in sizes)


def test_what_a_stage_did_not_write_is_one_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    history = paths.RUNS / "vit_scratch" / "history.csv"
    content = history.read_bytes()
    history.unlink()
    with pytest.raises(UserError, match=r"history.csv .*: run `dvc repro train@vit_scratch`"):
        compare.main()
    history.write_bytes(content)


def test_the_app_reads_what_the_stage_wrote(compared: LoggedComparison) -> None:
    assert compared.models == ["vit_transfer", "mobilenet_transfer", "vit_scratch"]
    assert compared.verdict.startswith("**Ship vit_transfer**")
    assert compared.report.startswith("# ")
    tables = {name: compared.table(name) for name in comparison.COLUMNS}
    assert all(set(table["model"]) == set(MODELS) for table in tables.values())
    assert set(tables["superclasses"]["actual"]) == set(SUPERCLASSES)
    assert "red apple" in set(tables["classes"]["class"])
    summary = tables["summary"].set_index("model")
    assert (summary["low"] < summary["top1"]).all()
    assert (summary["top1"] < summary["high"]).all()
    assert summary["milliseconds"].to_dict() == {model: milliseconds for model, (_, milliseconds, _) in MODELS.items()}
    shown = compared.explorer()
    assert shown.images.shape == (COUNTS["test"], SIZE, SIZE, 3)
    assert shown.models == list(MODELS)
    for model in MODELS:
        top1 = (shown.predictions(model).predicted == shown.labels).mean()
        assert top1 == pytest.approx(summary["top1"][model], abs=1e-6)


def write() -> None:
    """Run the stage on made-up predictions, and write the explorer as `register` does."""
    rng = np.random.default_rng(0)
    labels = {split: np.arange(count, dtype=np.int64) % len(CLASSES) for split, count in COUNTS.items()}
    facts = ("dropped_from_train_because_in_test", "identical_copies_in_train", "val_fraction", "split_seed")
    dataset.write(
        paths.PREPARED,
        source="cifar100",
        class_names=CLASSES,
        superclass_names=SUPERCLASSES,
        superclass_of_class=SUPERCLASS_OF,
        splits={
            split: (rng.integers(0, 256, (len(own), SIZE, SIZE, 3), dtype=np.uint8), own)
            for split, own in labels.items()
        },
        facts={key: DATASET[key] for key in (*facts, "limit_per_class")},
    )
    probabilities = {model: _write_model(rng, model, labels) for model in MODELS}
    compare.main()
    prepared, folder = dataset.Prepared.open(paths.PREPARED), paths.REPORTS / "explorer"
    files = explorer.write(
        folder,
        prepared.folder / "test_images.npy",
        prepared.folder / "test_labels.npy",
        {key: getattr(prepared, key) for key in ("class_names", "superclass_names", "superclass_of_class")},
        probabilities,
    )
    for name, file in files.items():  # as artifacts of the run lie
        if file.parent != folder:
            (paths.REPORTS / name).symlink_to(file.resolve())


def _write_model(rng: np.random.Generator, model: str, labels: dict[str, np.ndarray]) -> np.ndarray:
    """What the stages before write of a model; returns its calibrated probabilities on test."""
    skill, milliseconds, seconds = MODELS[model]

    def logits(of: np.ndarray) -> np.ndarray:
        noise = rng.normal(0, 1.5, (len(of), len(CLASSES)))
        return (noise + skill * np.eye(len(CLASSES))[of]).astype(np.float32)

    val, test = (Predictions(logits(labels[split]), labels[split]) for split in ("val", "test"))
    metrics = summarize(val, test, SUPERCLASS_OF)
    rows = np.arange(0, len(test.labels), 2)
    corrupted = {f"corrupted_{name}": np.stack([logits(test.labels[rows]) for _ in SEVERITIES]) for name in CORRUPTIONS}
    cost = {
        "weights_bytes": 7_290_128,
        "latency_p50_ms": milliseconds,
        "latency_p95_ms": 20.0,
        "training_seconds": seconds,
    }
    files = {"float32": {"file": "model.onnx", "sha256": "f" * 64}}
    json_files = {
        paths.METRICS / f"{model}.json": metrics,
        paths.PROFILES / f"{model}.json": PROFILE | cost,
        paths.ONNX / model / "export.json": {"serves": "float32", "files": files, "int8": None},
        paths.RUNS / model / "run.json": RUN | {"resolved": RUN["resolved"] | {"weights": "random"}},
    }
    for file, content in json_files.items():
        write_json(file, content)
    for folder in (paths.PREDICTIONS, paths.ROBUSTNESS):
        folder.mkdir(parents=True, exist_ok=True)
    np.savez(paths.PREDICTIONS / f"{model}.npz", val_logits=val.logits, test_logits=test.logits)
    np.savez(paths.ROBUSTNESS / f"{model}.npz", rows=rows, ood_noise=logits(val.labels) / 2, **corrupted)
    course = pd.DataFrame({"seconds": [seconds / 2, seconds], "train_loss": [2.0, 1.0], "train_top1": [0.3, 0.5]})
    of_epochs = course.assign(epoch=[1, 2], val_loss=[1.9, 1.1], val_top1=[0.35, 0.55], learning_rate=0.001)
    of_epochs.to_csv(paths.RUNS / model / "history.csv", index=False)
    course.assign(step=[20, 40], learning_rate=0.001).to_csv(paths.RUNS / model / "steps.csv", index=False)
    return softmax(test.logits, metrics["calibration"]["temperature"])
