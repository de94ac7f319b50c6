"""Stored logits, read and checked."""

from types import SimpleNamespace

import numpy as np
import pytest

from stages.common import paths
from stages.common.errors import UserError
from stages.data.corruptions import CORRUPTIONS, SEVERITIES
from stages.evaluation import predictions

N, C, CORRUPTED = 6, 4, 3
LOGITS = np.random.default_rng(0).normal(size=(N, C)).astype(np.float32)
PREDICTED = {"seed": np.array(3), "test_logits": LOGITS}
ROBUSTNESS = {
    "rows": np.array([0, 2, 5]),
    **{f"corrupted_{name}": np.full((len(SEVERITIES), CORRUPTED, C), i) for i, name in enumerate(CORRUPTIONS)},
    **{f"ood_{split}_noise": np.ones((7, C)) for split in ("val", "test")},
}
PREPARED = SimpleNamespace(class_names=["a", "b", "c", "d"], split=lambda name: (np.zeros(N), np.arange(N) % C))


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Write arrays in an empty repository, and read them for 6 test images in 4 classes."""
    monkeypatch.chdir(tmp_path)
    for folder in (paths.PREDICTIONS, paths.ROBUSTNESS):
        folder.mkdir(parents=True)

    def read(predicted=PREDICTED, robustness=ROBUSTNESS):
        np.savez(paths.PREDICTIONS / "m.npz", **predicted)
        np.savez(paths.ROBUSTNESS / "m.npz", **robustness)
        predictions.under_shift("m", PREPARED, predictions.of_split("m", PREPARED, "test"))

    return read


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut off"])
def test_a_missing_or_damaged_file_names_the_stage_that_writes_it(read, content):
    if content is not None:
        (paths.PREDICTIONS / "m.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*predictions/m\.npz .*: run `dvc repro predict@m`"):
        predictions.of_split("m", PREPARED, "test")


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ((PREDICTED, {}), r"robustness/m\.npz .*: run `dvc repro robustness@m`"),
        (({"val_logits": LOGITS},), "run `dvc repro predict@m`"),
        (({"test_logits": LOGITS[:, 1:]},), r"\(6, 3\), expected \(6, 4\) .*: run `dvc repro --force predict@m`"),
        (({"test_logits": LOGITS[1:]},), r"\(5, 4\), expected \(6, 4\)"),
        (({"test_logits": LOGITS * np.nan},), "finite"),
        ((PREDICTED, ROBUSTNESS | {"corrupted_blur": np.zeros((2, CORRUPTED, C))}), r"blur are \(2, 3, 4\)"),
        ((PREDICTED, ROBUSTNESS | {"ood_val_noise": np.full((7, C), np.inf)}), "noise .* --force robustness@m`"),
        ((PREDICTED, {key: own for key, own in ROBUSTNESS.items() if key != "ood_val_noise"}), "lacks out-of-distri"),
    ],
)
def test_logits_that_do_not_fit_the_data_are_refused(read, stored, expected):
    with pytest.raises(UserError, match=expected):
        read(*stored)


def test_the_seeds_are_told_apart_in_their_order_and_the_chosen_one_is_read_by_default(read):
    read(PREDICTED | {"test_logits_12": LOGITS + 12, "test_logits_0": LOGITS * 0, "val_logits_0": LOGITS})
    found = predictions.by_seed("m", PREPARED, "test")
    assert list(found) == [0, 3, 12]
    for seed, logits in ((0, LOGITS * 0), (3, LOGITS), (12, LOGITS + 12)):
        np.testing.assert_array_equal(found[seed].logits, logits)
        assert found[seed].labels.tolist() == [0, 1, 2, 3, 0, 1]
    assert predictions.chosen_seed("m") == 3
    np.testing.assert_array_equal(predictions.of_split("m", PREPARED, "test").logits, LOGITS)
    read(PREDICTED | {"test_logits_0": LOGITS[1:]})
    with pytest.raises(UserError, match=r"\(5, 4\), expected \(6, 4\)"):
        predictions.by_seed("m", PREPARED, "test")
