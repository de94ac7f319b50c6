"""Stored logits, read and checked."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stages.common import paths
from stages.common.errors import UserError
from stages.data.corruptions import CORRUPTIONS, SEVERITIES
from stages.evaluation import predictions

N, C, CORRUPTED = 6, 4, 3
LOGITS = np.random.default_rng(0).normal(size=(N, C)).astype(np.float32)
ROBUSTNESS = {
    "rows": np.array([0, 2, 5]),
    **{f"corrupted_{name}": np.full((len(SEVERITIES), CORRUPTED, C), i) for i, name in enumerate(CORRUPTIONS)},
    "ood_noise": np.ones((7, C)),
}


@pytest.fixture
def prepared(tmp_path, monkeypatch) -> Any:
    """A data set of 6 images in 4 classes, in an empty repository."""
    monkeypatch.chdir(tmp_path)
    for folder in (paths.PREDICTIONS, paths.ROBUSTNESS):
        folder.mkdir(parents=True)
    labels = np.arange(N) % C
    return SimpleNamespace(class_names=["a", "b", "c", "d"], split=lambda name: (np.zeros((N, 2, 2, 3)), labels))


def test_what_was_stored_is_read(prepared):
    np.savez(paths.PREDICTIONS / "m.npz", test_logits=LOGITS)
    np.savez(paths.ROBUSTNESS / "m.npz", **ROBUSTNESS)
    found = predictions.of_split("m", prepared, "test")
    assert (found.logits == LOGITS).all()
    assert found.labels.tolist() == [0, 1, 2, 3, 0, 1]
    rows, corrupted = predictions.to_corrupted("m", prepared)
    assert rows.tolist() == [0, 2, 5]
    assert [float(values.mean()) for values in corrupted.values()] == list(range(len(CORRUPTIONS)))
    assert list(predictions.to_ood("m", prepared)) == ["noise"]


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut off"])
def test_a_missing_or_damaged_file_names_the_stage_that_writes_it(prepared, content):
    if content is not None:
        (paths.PREDICTIONS / "m.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*predictions/m\.npz .*: run `dvc repro predict@m`"):
        predictions.of_split("m", prepared, "test")
    with pytest.raises(UserError, match=r"robustness/m\.npz .*: run `dvc repro robustness@m`"):
        predictions.to_ood("m", prepared)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"val_logits": LOGITS}, "run `dvc repro predict@m`"),
        ({"test_logits": np.zeros((N, C + 1))}, r"expected \(6, 4\) finite numbers: run `dvc repro --force predict@m`"),
        ({"test_logits": np.zeros((N - 1, C))}, r"\(5, 4\), expected \(6, 4\)"),
        ({"test_logits": np.full((N, C), np.nan)}, "finite"),
        (
            {"test_logits": LOGITS, "corrupted_blur": np.zeros((2, CORRUPTED, C))},
            r"blur are \(2, 3, 4\), .*robustness@m`",
        ),
        ({"test_logits": LOGITS, "ood_noise": np.full((7, C), np.inf)}, "noise"),
    ],
)
def test_logits_that_do_not_fit_the_data_are_refused(prepared, arrays, expected):
    np.savez(paths.PREDICTIONS / "m.npz", **arrays)
    np.savez(paths.ROBUSTNESS / "m.npz", **ROBUSTNESS | arrays)
    with pytest.raises(UserError, match=expected):
        predictions.of_split("m", prepared, "test")
        predictions.to_corrupted("m", prepared)
        predictions.to_ood("m", prepared)
