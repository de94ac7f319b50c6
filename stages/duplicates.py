"""Stage `duplicates`: which val, gate and test images have a near duplicate among the training images."""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np

from stages.common import paths
from stages.common.errors import one_line_errors
from stages.common.files import replacing, write_arrays, write_json
from stages.data import near_duplicates
from stages.data.dataset import Prepared
from stages.data.near_duplicates import THRESHOLD, Nearest, are_duplicates
from stages.report import galleries

SHOWN = 32  # pairs on either side of the threshold


def main() -> None:
    matplotlib.use("Agg")
    prepared = Prepared.open(paths.PREPARED)
    names = [name for name in prepared.description["counts"] if name != "train"]
    images, labels = zip(*(prepared.split(name) for name in names), strict=True)
    train, train_labels = prepared.split("train")
    found = near_duplicates.nearest(np.concatenate(images), train)
    ends = np.cumsum([len(some) for some in labels])[:-1]
    by_split = dict(zip(names, map(Nearest, *(np.split(table, ends) for table in found)), strict=True))
    arrays = {f"{name}_{key}": table for name, own in by_split.items() for key, table in own._asdict().items()}
    write_arrays(paths.DUPLICATES, arrays)
    facts = {name: _facts(own, prepared, name, train_labels) for name, own in by_split.items()}
    write_json(paths.NEAR_DUPLICATES, {"threshold": THRESHOLD, "data_sha256": prepared.data_sha256, **facts})
    with replacing(paths.NEAR_DUPLICATES.with_suffix(".png")) as file:
        galleries.save(galleries.near_duplicates(*_around_threshold(prepared, by_split["test"]), THRESHOLD), file)
    shares = ", ".join(f"{own['share']:.1%} of {name}" for name, own in facts.items())
    print(f"images with a near duplicate in train: {shares} ({paths.NEAR_DUPLICATES})")


def _facts(found: Nearest, prepared: Prepared, split: str, train_labels: np.ndarray) -> Mapping[str, Any]:
    is_duplicate, labels = are_duplicates(found.similarity, prepared.source), prepared.split(split)[1]
    return {
        "images": len(labels),
        "with_near_duplicate": int(is_duplicate.sum()),
        "share": round(float(is_duplicate.mean()), 6),
        "of_another_class": int((train_labels[found.rows] != labels)[is_duplicate].sum()),
    }


def _around_threshold(prepared: Prepared, found: Nearest) -> tuple[np.ndarray, np.ndarray]:
    """Test images beside their training images, (N, S, 2 S, 3), and their similarity: those next to the threshold."""
    order = np.argsort(-found.similarity, kind="stable")
    first_below = int((found.similarity >= THRESHOLD).sum())
    rows = order[max(0, first_below - SHOWN) : first_below + SHOWN]
    pairs = [prepared.split("test")[0][rows], prepared.split("train")[0][found.rows[rows]]]
    return np.concatenate(pairs, axis=2), found.similarity[rows]


if __name__ == "__main__":
    with one_line_errors("duplicates"):
        main()
