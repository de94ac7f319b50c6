"""What the app gets to show a comparison picture by picture."""

from pathlib import Path

import numpy as np

from stages.tracking.explorer import Explorer


def test_the_likeliest_class_stays_it_where_half_precision_would_make_two_equal(tmp_path: Path) -> None:
    np.save(tmp_path / "pictures.npy", np.zeros((3, 8, 8, 3), np.uint8))
    np.save(tmp_path / "classes.npy", np.arange(3))
    probabilities = np.array([[0.3, 0.30001, 0.39999], [0.45001, 0.45002, 0.09997], [0.1, 0.2, 0.7]], np.float32)
    assert probabilities.astype(np.float16).argmax(axis=1).tolist() == [2, 0, 2]  # the second is wrong
    (tmp_path / "explorer").mkdir()
    written = Explorer({}, "d" * 64, tmp_path / "pictures.npy", tmp_path / "classes.npy", {"a": probabilities})
    written.write(tmp_path / "explorer")
    stored = np.load(tmp_path / "explorer" / "probabilities-a.npy", allow_pickle=False)
    assert stored.argmax(axis=1).tolist() == [2, 1, 2]
    assert np.abs(stored - probabilities).max() < 5e-4
