"""The stages after `export`, on tiny networks, and the app that reads what they wrote."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image

from gui import comparison
from gui.registry import ModelRegistry
from stages import compare, duplicates, evaluate, predict, profile, register, robustness
from stages.common import paths
from stages.common.errors import UserError
from stages.common.files import file_sha256, write_json, write_text
from stages.data import dataset
from stages.evaluation import cost
from stages.report import figures
from tests import linear_onnx
from tests.changed_params import SHIPPED
from tests.gui.small_comparison import COLOURS, SIZE
from tests.report.conftest import DATASET, RUN

CLASSES = ["red_apple", "green_leaf", "blue_sea", "white_rabbit", "black_cat", "yellow_lemon"]
SUPERCLASSES = ["plants", "things & waters", "animals"]
MODELS = {"vit_scratch": 90, "vit_transfer": 0, "mobilenet_transfer": 50}  # as params.yaml has them: error of colours
TWO_SEEDS = "vit_transfer"
COUNTS = {"train": 60, "val": 240, "gate": 120, "test": 120}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository where the stages after `export` have run."""
    root, rng = tmp_path_factory.mktemp("repository"), np.random.default_rng(0)
    shutil.copy(SHIPPED, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(cost, "THROUGHPUT_SECONDS", 0.1)
        patch.setenv("PYTHONPATH", str(SHIPPED.parent))  # for the process that times a cold load
        facts = (
            "dropped_from_train_because_in_test",
            "identical_copies_in_train",
            "val_fraction",
            "gate_fraction",
            "split_seed",
        )
        dataset.write(
            paths.PREPARED,
            source="cifar100",
            class_names=CLASSES,
            superclass_names=SUPERCLASSES,
            superclass_of_class=[0, 0, 1, 2, 2, 0],
            splits={split: tinted(count, rng) for split, count in COUNTS.items()},
            facts={key: DATASET[key] for key in (*facts, "limit_per_class")},
        )
        duplicates.main()
        for model, error in MODELS.items():
            write_trained(model, COLOURS + rng.normal(0, error, COLOURS.shape))
            if model == TWO_SEEDS:
                write_trained(model, COLOURS[::-1], seed=1)
            patch.setattr("sys.argv", ["stage", model])
            for stage in (predict, robustness, evaluate, profile):
                stage.main()
        shutil.copy(SHIPPED.parent / paths.NOTEBOOKS, paths.NOTEBOOKS)
        write_text(paths.STUDIES / "epochs.csv", "model,value,val_top1,minutes,data\nvit_scratch,1,0.3,1,another\n")
        compare.main()
        register.main()
    return root


def tinted(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Images in the colour of their class, more or less, and labels."""
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    tints = COLOURS[labels][:, None, None] + rng.normal(0, 60, (count, 1, 1, 3))
    return np.clip(tints + rng.normal(0, 20, (count, SIZE, SIZE, 3)), 0, 255).astype(np.uint8), labels


def write_trained(model: str, colours: np.ndarray, seed: int = 0) -> None:
    """What `train` and `export` write of a network that tells these colours apart; seed 0 is chosen."""
    name = f"{model}-{seed}"
    for folder in (paths.ONNX, paths.RUNS):
        (folder / model / str(seed)).mkdir(parents=True)
    file = linear_onnx.of_colours(paths.ONNX / model / str(seed) / "model.onnx", colours, SIZE)
    sizes = {"image_size": SIZE, "num_parameters": 1_158, "multiply_adds": 1_152}
    files = {"float32": {"file": file.name, "sha256": file_sha256(file)}}
    description = {"weights_sha256": name, "serves": "float32", "files": files, "int8": None, **sizes}
    write_json(paths.ONNX / model / str(seed) / "export.json", description)
    write_json(
        paths.ONNX / model / "chosen.json", {"seed": 0, "val_top1": dict.fromkeys(map(str, range(seed + 1)), 0.5)}
    )
    record = {
        **{"model": model, "training_id": name, "run_id": None, "tags": {}, "weights_sha256": name},
        **{"started": "2024-02-03T04:05:06.000+00:00", "ended": "2024-02-03T04:07:06.000+00:00"},
        "dataset": {"name": "cifar100", "sha256": "d" * 64, "counts": COUNTS, "source": "cifar.tar.xz"},
        "resolved": RUN["resolved"] | {"weights": "random"},
    }
    write_json(paths.RUNS / model / str(seed) / "run.json", RUN | record)
    course = pd.DataFrame({"seconds": [60, 120], "train_loss": [2.0, 1.0], "train_top1": [0.3, 0.5]})
    of_epochs = course.assign(epoch=[1, 2], val_loss=[1.9, 1.1], val_top1=[0.35, 0.55], learning_rate=0.001)
    of_epochs.to_csv(paths.RUNS / model / str(seed) / "history.csv", index=False)
    course.assign(step=[20, 40], learning_rate=0.001).to_csv(paths.RUNS / model / str(seed) / "steps.csv", index=False)
    learning = pd.DataFrame({"images": [30, 60], "seconds": [50, 110], "val_top1": [0.2, 0.5], "val_loss": [2.0, 1.0]})
    learning.to_csv(paths.RUNS / model / str(seed) / "learning.csv", index=False)


def test_every_figure_is_drawn(repository: Path) -> None:
    sizes = {file.stem: Image.open(file).size for file in (repository / paths.PLOTS).iterdir()}
    by_model = {f"superclass_confusion_{model}" for model in MODELS}
    galleries = {"contact_sheet", "corruptions", "mistakes", "suspects"}
    assert set(sizes) == set(figures.TITLES) - {"equal_minutes"} | by_model | galleries, "no study of equal minutes"
    assert all(width > 500 and height > 150 for width, height in sizes.values())
    report = (repository / paths.COMPARISON).read_text()
    assert all(f"(plots/{name}.png)" in report for name in sizes)


def test_every_seed_is_measured_and_the_chosen_one_goes_on(repository: Path) -> None:
    learning = pd.read_csv(repository / paths.TABLES / "learning.csv")
    assert learning.groupby("model")["seed"].unique().map(list).to_dict() == {
        model: [0, 1] if model == TWO_SEEDS else [0] for model in MODELS
    }
    assert list(learning.columns) == ["model", "seed", "images", "seconds", "val_top1", "val_loss"]
    for model in MODELS:
        metrics = json.loads((repository / paths.METRICS / f"{model}.json").read_text())
        assert metrics["seeds"]["chosen"] == 0
        for split in ("val", "test"):
            found = metrics["seeds"][split]
            assert found["top1"]["0"] == metrics[split]["top1"]
            assert found["mean"] == pytest.approx(np.mean(list(found["top1"].values())), abs=1e-6)
            if model == TWO_SEEDS:
                assert found["top1"]["1"] < 0.3 < found["top1"]["0"]
                assert found["std"] == pytest.approx(np.std(list(found["top1"].values()), ddof=1), abs=1e-6)
            else:
                assert found["std"] is None
    client = MlflowClient(f"sqlite:///{repository}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("cifar100").experiment_id])
    of_seeds = {run.data.tags["weights_sha256"] for run in runs if "mlflow.parentRunId" in run.data.tags}
    assert of_seeds == {f"{TWO_SEEDS}-0", f"{TWO_SEEDS}-1"}


def test_what_a_stage_did_not_write_is_one_line(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    history = paths.RUNS / "vit_scratch" / "0" / "history.csv"
    content = history.read_bytes()
    history.unlink()
    with pytest.raises(UserError, match=r"history.csv .*: run `dvc repro train@vit_scratch`"):
        compare.main()
    history.write_bytes(content)


def test_studies_of_other_data_are_no_part_of_a_comparison(repository: Path) -> None:
    content = json.loads((repository / paths.COMPARISON_DATA).read_text())
    assert content["studies"] == []
    assert content["claims"]["epochs"]["verdict"] == "Not tested"
    assert not list((repository / "mlartifacts").rglob("epochs.csv"))
    assert list((repository / "mlartifacts").rglob("claims.md")), "where they would be"


def test_the_app_reads_what_the_stages_wrote(repository: Path) -> None:
    [champion] = ModelRegistry(f"sqlite:///{repository}/mlflow.db").champions()
    compared = comparison.of(champion)
    of_seeds = {
        model: json.loads((repository / paths.METRICS / f"{model}.json").read_text())["seeds"]["test"]
        for model in MODELS
    }
    assert compared.models == sorted(MODELS, key=lambda model: -of_seeds[model]["mean"])
    assert compared.verdict.startswith("**Ship vit_transfer**")
    assert compared.report.startswith("# ")
    tables = {name: compared.table(name) for name in comparison.COLUMNS}
    assert all(set(table["model"]) == set(MODELS) for table in tables.values())
    assert set(tables["superclasses"]["actual"]) == set(SUPERCLASSES)
    summary = tables["summary"].set_index("model")
    shown = compared.explorer()
    assert shown.images.shape == (COUNTS["test"], SIZE, SIZE, 3)
    assert shown.models == list(MODELS)
    for model, row in summary.iterrows():
        assert row["low"] < row["top1"] < row["high"]
        measured = json.loads((repository / paths.PROFILES / f"{model}.json").read_text())
        costs = measured["latency_p50_ms"], measured["weights_bytes"] / 1e6
        assert (row["milliseconds"], row["megabytes"]) == pytest.approx(costs)
        top1 = (shown.predictions(model).predicted == shown.labels).mean()
        assert top1 == pytest.approx(row["top1"], abs=1e-6)
