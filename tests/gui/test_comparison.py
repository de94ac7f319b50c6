"""The comparison behind a registered version, read from its run."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from gui import comparison, registry
from gui.comparison import Comparison, ComparisonError
from tests.gui.conftest import METADATA, LogComparison, Register

MODELS = ["vit_scratch", "vit_transfer", "mobilenet_transfer"]


def opened() -> Comparison:
    """The comparison of the only champion."""
    return comparison.of(registry.connect().champions()[0])


def artifacts(tmp_path: Path, run_id: str) -> Path:
    return tmp_path / "mlartifacts" / run_id / "artifacts"


def test_a_version_leads_to_its_comparison(register: Register, log_comparison: LogComparison) -> None:
    log_comparison(register())
    found = opened()
    assert sorted(found.models) == sorted(MODELS)
    assert found.models[0] == "vit_transfer"
    assert found.verdict.startswith("**Ship vit_transfer**")
    assert found.report.startswith("# Which classifier to ship on cifar100?")
    assert found.metrics("vit_scratch")["test"]["top1_low"] < found.metrics("vit_scratch")["test"]["top1"]
    assert set(found.robustness) == set(MODELS)
    assert found.data["facts"]["vit_scratch"]["cost"]["latency_p50_ms"] == 5.0
    for name in comparison.COLUMNS:
        assert set(found.table(name)["model"]) == set(MODELS)
    assert set(found.table("superclasses")["actual"]) == set(METADATA["superclass_names"])
    assert "red apple" in set(found.table("classes")["class"])


def test_the_summary_says_what_each_model_reaches_and_costs(register: Register, log_comparison: LogComparison) -> None:
    log_comparison(register())
    summary = opened().summary().set_index("model")
    assert list(summary.index) == opened().models
    assert (summary["low"] < summary["top1"]).all()
    assert (summary["top1"] < summary["high"]).all()
    assert summary.loc["vit_transfer", ["milliseconds", "minutes", "megabytes"]].tolist() == [12.7, 520 / 60, 7.290128]


def test_the_explorer_holds_the_test_pictures_and_every_models_answers(
    register: Register, log_comparison: LogComparison
) -> None:
    log_comparison(register())
    found = opened()
    explorer = found.explorer()
    assert explorer is found.explorer()
    assert explorer.images.shape == (120, 8, 8, 3)
    assert isinstance(explorer.images, np.memmap)
    assert explorer.models == MODELS
    assert explorer.class_names[0] == "red apple"
    assert explorer.superclass_of[5] == "plants"
    for model in MODELS:
        assert explorer.probabilities(model).dtype == np.float16
        answers = explorer.answers(model)
        assert answers is explorer.answers(model)
        assert (answers.predicted == explorer.labels).mean() == pytest.approx(found.metrics(model)["test"]["top1"])
        assert np.allclose(answers.confidence, explorer.probabilities(model).max(axis=1))


def test_a_local_store_is_read_in_place(register: Register, log_comparison: LogComparison, tmp_path: Path) -> None:
    run_id = log_comparison(register())
    assert Path(opened().explorer().images.filename) == artifacts(tmp_path, run_id) / "explorer" / "images.npy"


def test_a_comparison_is_opened_once_and_another_run_is_another_one(
    register: Register, log_comparison: LogComparison
) -> None:
    log_comparison(register())
    first = opened()
    assert opened() is first
    log_comparison(register())
    assert opened().run_id != first.run_id


def test_a_version_without_comparison_is_one_line(register: Register) -> None:
    register()
    with pytest.raises(ComparisonError, match="^No comparison was logged with version 1 of cifar100-.*make register"):
        opened()


def test_a_run_that_is_gone_is_one_line(register: Register, log_comparison: LogComparison, tracking_uri: str) -> None:
    client = MlflowClient(tracking_uri=tracking_uri)
    number = register()
    client.delete_run(log_comparison(number))
    with pytest.raises(ComparisonError, match="^The comparison .* was deleted: .*make register"):
        opened()
    client.set_model_version_tag("cifar100-classifier", str(number), "comparison_run_id", "0" * 32)
    with pytest.raises(ComparisonError, match="^The comparison .* cannot be opened .*0{32}.*make register"):
        opened()


def test_files_that_are_gone_are_one_line_and_found_again(
    register: Register, log_comparison: LogComparison, tmp_path: Path
) -> None:
    folder = artifacts(tmp_path, log_comparison(register()))
    found = opened()
    (folder / "explorer").rename(tmp_path / "elsewhere")
    with pytest.raises(ComparisonError, match=r"^`explorer/dataset.json` .* out of reach .*make register"):
        found.explorer()
    (tmp_path / "elsewhere").rename(folder / "explorer")
    assert found.explorer().models == MODELS


@pytest.mark.parametrize(
    ("content", "expected"),
    [("[]", "a list"), ("{}", "verdict"), ('{"verdict": "Ship a.", "ranking": 5}', "not iterable"), ("{", "JSON")],
)
def test_a_comparison_of_another_layout_is_one_line(
    register: Register, log_comparison: LogComparison, tmp_path: Path, content: str, expected: str
) -> None:
    folder = artifacts(tmp_path, log_comparison(register()))
    (folder / "comparison.json").write_text(content)
    with pytest.raises(ComparisonError, match=f"^`comparison.json` .*{expected}.*make register") as refusal:
        opened()
    assert "\n" not in str(refusal.value)


def replace(folder: Path, name: str, array: np.ndarray) -> None:
    np.save(folder / "explorer" / name, array)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("images", np.zeros((120, 8, 8, 3), np.float32)),
        ("images", np.zeros((119, 8, 8, 3), np.uint8)),
        ("images", np.array([{"a": 1}])),
        ("labels", np.full(120, 6)),
        ("labels", np.full(120, -1)),
    ],
)
def test_damaged_arrays_are_one_line_and_nothing_is_unpickled(
    register: Register, log_comparison: LogComparison, tmp_path: Path, name: str, array: np.ndarray
) -> None:
    replace(artifacts(tmp_path, log_comparison(register())), name, array)
    with pytest.raises(ComparisonError, match=f"^`explorer/{name}.npy` .* damaged or of another version"):
        opened().explorer()


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


def test_an_array_that_is_a_pickle_is_never_unpickled(
    register: Register, log_comparison: LogComparison, tmp_path: Path
) -> None:
    folder = artifacts(tmp_path, log_comparison(register()))
    (folder / "explorer" / "labels.npy").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(ComparisonError, match=r"labels.npy"):
        opened().explorer()
    assert not (tmp_path / "exploded").exists()


def test_probabilities_that_do_not_fit_the_pictures_are_one_line(
    register: Register, log_comparison: LogComparison, tmp_path: Path
) -> None:
    folder = artifacts(tmp_path, log_comparison(register()))
    replace(folder, "probabilities-vit_scratch", np.zeros((120, 5), np.float16))
    with pytest.raises(ComparisonError, match=r"probabilities-vit_scratch.npy.*\(120, 5\)"):
        opened().explorer().answers("vit_scratch")


def test_a_table_of_another_layout_is_one_line(
    register: Register, log_comparison: LogComparison, tmp_path: Path
) -> None:
    folder = artifacts(tmp_path, log_comparison(register()))
    (folder / "tables" / "curves.csv").write_text("epoch,val_top1\n1,0.5\n")
    with pytest.raises(ComparisonError, match="no column model, seconds, val_loss"):
        opened().table("curves")
    (folder / "tables" / "curves.csv").write_text("")
    with pytest.raises(ComparisonError, match=r"tables/curves.csv"):
        opened().table("curves")


def test_the_names_of_classes_are_as_people_read_them(
    register: Register, log_comparison: LogComparison, tmp_path: Path
) -> None:
    folder = artifacts(tmp_path, log_comparison(register()))
    described = json.loads((folder / "explorer" / "dataset.json").read_text())
    assert described["class_names"] == METADATA["class_names"]
    assert not any("_" in name for name in opened().explorer().class_names)
