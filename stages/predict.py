"""Stage `predict`: the logits of one trained model for the validation and the test pictures."""

import argparse

import numpy as np

from stages import classifiers, params, paths
from stages.datasets.prepared import Prepared
from stages.errors import UserError, one_line_errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a key of models in params.yaml")
    name = parser.parse_args().model
    settings = params.read()
    # As the registered model will answer, whatever the model was trained on.
    classifiers.classifier_class(settings.model(name).classifier).configure(settings.compute.on_cpu)
    classifier = classifiers.load(paths.MODELS / name)
    prepared = Prepared.open(paths.PREPARED)

    def logits_of(split: str) -> np.ndarray:
        images, _ = prepared.split(split)
        logits = classifier.logits(images)
        if not np.isfinite(logits).all():
            raise UserError(f"{name}: some logits of the {split} pictures are no finite numbers: train it again")
        print(f"{name}: predicted {len(images):,} {split} pictures")
        return logits

    paths.PREDICTIONS.mkdir(parents=True, exist_ok=True)
    paths.SCRATCH.mkdir(parents=True, exist_ok=True)
    unfinished = paths.SCRATCH / f"predictions-{name}.npz"
    np.savez(unfinished, val_logits=logits_of("val"), test_logits=logits_of("test"))
    unfinished.replace(paths.PREDICTIONS / f"{name}.npz")


if __name__ == "__main__":
    with one_line_errors("predict"):
        main()
