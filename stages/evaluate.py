"""Stage `evaluate`: the measures of one model on validation and test, from its stored logits."""

import argparse
import zipfile
from collections.abc import Mapping

import numpy as np

from stages import outputs, params, paths
from stages.datasets.prepared import Prepared
from stages.errors import UserError, one_line_errors
from stages.metrics import accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a key of models in params.yaml")
    name = parser.parse_args().model
    params.read().model(name)
    prepared = Prepared.open(paths.PREPARED)
    file = paths.PREDICTIONS / f"{name}.npz"
    try:
        with np.load(file, allow_pickle=False) as stored:
            predictions: Mapping[str, np.ndarray] = {key: stored[key] for key in ("val_logits", "test_logits")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {file} ({error}): run `dvc repro predict@{name}`") from error
    metrics = {}
    for split in ("val", "test"):
        logits, (_, labels) = predictions[f"{split}_logits"], prepared.split(split)
        expected = (len(labels), len(prepared.class_names))
        if logits.shape != expected or not np.isfinite(logits).all():
            raise UserError(
                f"{file}: the {split} logits are {logits.shape}, expected {expected} finite numbers: "
                f"run `dvc repro --force predict@{name}`"
            )
        metrics[split] = accuracy.summary(logits, labels, prepared.superclass_of_class)
        print(f"{name}: {split} top-1 {metrics[split]['top1']:.2%}, top-5 {metrics[split]['top5']:.2%}")
    outputs.write_json(paths.METRICS / f"{name}.json", metrics)


if __name__ == "__main__":
    with one_line_errors("evaluate"):
        main()
