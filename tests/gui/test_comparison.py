"""The comparison behind a registered version, read from its run."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from gui import comparison
from gui.comparison import ComparisonError, LoggedComparison
from tests.gui.conftest import METADATA, LogComparison, Register, champions_comparison

MODELS = ["vit_scratch", "vit_transfer", "mobilenet_transfer"]


def test_the_explorer_holds_the_test_images_and_every_models_predictions(champion_run: Path) -> None:
    found = champions_comparison()
    assert champions_comparison() is found
    assert all(list(found.table(name)["model"].unique()) == found.models for name in comparison.COLUMNS)
    explorer = found.explorer()
    assert explorer is found.explorer()
    assert Path(explorer.images.filename) == champion_run / "explorer" / "images.npy", "a local store is read in place"
    assert explorer.images.shape == (120, 8, 8, 3)
    assert explorer.models == MODELS
    assert explorer.class_names == [name.replace("_", " ") for name in METADATA["class_names"]]
    assert explorer.superclass_names[explorer.superclass_index[5]] == "plants"
    summary = found.table("summary").set_index("model")
    for model in MODELS:
        predictions = explorer.predictions(model)
        assert predictions is explorer.predictions(model)
        assert (predictions.predicted == explorer.labels).mean() == pytest.approx(summary["top1"][model])
        stored = np.load(champion_run / "explorer" / f"probabilities-{model}.npy")
        assert (predictions.confidence == stored.max(axis=1)).all()


def test_a_run_that_is_gone_is_one_line(
    register: Register, log_comparison: LogComparison, client: MlflowClient
) -> None:
    number = register()
    client.delete_run(log_comparison(number))
    with pytest.raises(ComparisonError, match="^The comparison .* was deleted: .*make register"):
        champions_comparison()
    client.set_model_version_tag("cifar100-classifier", str(number), comparison.RUN_TAG, "0" * 32)
    with pytest.raises(ComparisonError, match="^The comparison .* cannot be opened .*0{32}.*make register"):
        champions_comparison()


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("exploded"),)


def read_everything(found: LoggedComparison) -> None:
    for name in comparison.COLUMNS:
        found.table(name)
    for model in MODELS:
        found.explorer().predictions(model)
    assert found.report


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("comparison.json", "[]", "indices"),
        ("comparison.json", "{", "JSON"),
        ("comparison.md", b"\xff", "decode"),
        ("tables/curves.csv", "epoch,val_top1\n1,0.5\n", "no column model, seconds, val_loss"),
        ("tables/steps.csv", "", "No columns"),
        ("explorer/dataset.json", '{"models": 5}', "not iterable"),
        ("explorer/images.npy", np.zeros((120, 8, 8, 4), np.uint8), "4"),
        ("explorer/images.npy", np.zeros((0, 8, 8, 3), np.uint8), "0, 8, 8, 3"),
        ("explorer/images.npy", np.array([{"a": 1}]), "Python objects"),
        ("explorer/labels.npy", np.zeros(119, np.int64), "119"),
        ("explorer/labels.npy", np.full(120, 6), "labels up to 6"),
        ("explorer/labels.npy", pickle.dumps(Bomb()), "pickled"),
        ("explorer/probabilities-vit_scratch.npy", np.zeros((120, 5), np.float16), "120, 5"),
    ],
)
def test_a_damaged_file_is_one_line_that_names_it(
    champion_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str, content: Any, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    read_everything(champions_comparison())
    comparison._open.cache_clear()
    if isinstance(content, np.ndarray):
        np.save(champion_run / file, content)
    else:
        (champion_run / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ComparisonError, match=f"^`{file}` .* damaged .*{expected}.*make register") as refusal:
        read_everything(champions_comparison())
    assert "\n" not in str(refusal.value)
    assert not Path("exploded").exists()
