"""Stored logits, read and checked."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stages.common import paths
from stages.common.errors import UserError
from stages.data.corruptions import CORRUPTIONS, SEVERITIES
from stages.evaluation import predictions

N, C, ALTERED = 6, 4, 3


@pytest.fixture
def prepared(tmp_path, monkeypatch) -> Any:
    """A data set of 6 pictures in 4 classes, in an empty repository."""
    monkeypatch.chdir(tmp_path)
    labels = np.arange(N) % C
    return SimpleNamespace(class_names=["a", "b", "c", "d"], split=lambda name: (np.zeros((N, 2, 2, 3)), labels))


def store(folder, **arrays: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "m.npz", **arrays)


def robustness(**changes: np.ndarray) -> dict[str, np.ndarray]:
    altered = {f"corrupted_{name}": np.full((len(SEVERITIES), ALTERED, C), i) for i, name in enumerate(CORRUPTIONS)}
    return {"rows": np.array([0, 2, 5]), **altered, "ood_noise": np.ones((7, C)), **changes}


def test_what_was_stored_is_read(prepared):
    logits = np.random.default_rng(0).normal(size=(N, C)).astype(np.float32)
    store(paths.PREDICTIONS, test_logits=logits)
    store(paths.ROBUSTNESS, **robustness())
    found = predictions.of_split("m", prepared, "test")
    assert (found.logits == logits).all()
    assert found.labels.tolist() == [0, 1, 2, 3, 0, 1]
    rows, altered = predictions.to_altered("m", prepared)
    assert rows.tolist() == [0, 2, 5]
    assert [float(values.mean()) for values in altered.values()] == list(range(len(CORRUPTIONS)))
    assert list(predictions.to_foreign("m", prepared)) == ["noise"]


def test_what_is_missing_names_the_stage_that_makes_it(prepared):
    with pytest.raises(UserError, match=r"predictions/m\.npz .*: run `dvc repro predict@m`"):
        predictions.of_split("m", prepared, "test")
    store(paths.PREDICTIONS, val_logits=np.zeros((N, C)))
    with pytest.raises(UserError, match="run `dvc repro predict@m`"):
        predictions.of_split("m", prepared, "test")
    with pytest.raises(UserError, match=r"robustness/m\.npz .*: run `dvc repro robustness@m`"):
        predictions.to_foreign("m", prepared)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_one_line(prepared, content):
    paths.PREDICTIONS.mkdir(parents=True)
    (paths.PREDICTIONS / "m.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*m\.npz"):
        predictions.of_split("m", prepared, "test")


@pytest.mark.parametrize("logits", [np.zeros((N, C + 1)), np.zeros((N - 1, C)), np.full((N, C), np.nan)])
def test_logits_that_do_not_fit_the_data_are_refused(prepared, logits):
    store(paths.PREDICTIONS, test_logits=logits)
    with pytest.raises(UserError, match=r"expected \(6, 4\) finite numbers: run `dvc repro --force predict@m`"):
        predictions.of_split("m", prepared, "test")


def test_answers_to_altered_pictures_are_checked_too(prepared):
    store(paths.ROBUSTNESS, **robustness(corrupted_blur=np.zeros((2, ALTERED, C))))
    with pytest.raises(UserError, match=r"corrupted_blur are \(2, 3, 4\), .*`dvc repro --force robustness@m`"):
        predictions.to_altered("m", prepared)
    store(paths.ROBUSTNESS, **robustness(ood_noise=np.full((7, C), np.inf)))
    with pytest.raises(UserError, match="noise"):
        predictions.to_foreign("m", prepared)
