"""Stage `predict`: the logits of one exported model for the validation and the test images."""

import argparse

import numpy as np

from stages.common import params, paths
from stages.common.errors import UserError, one_line_errors
from stages.data.dataset import Prepared
from stages.inference.exported import Exported


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a key of models in params.yaml")
    name = parser.parse_args().model
    settings = params.read()
    settings.model(name)
    network = Exported.open(name).load(settings.compute.cpu_threads)
    prepared = Prepared.open(paths.PREPARED)

    def logits_of(split: str) -> np.ndarray:
        images, _ = prepared.split(split)
        logits = network.logits(images)
        if not np.isfinite(logits).all():
            raise UserError(f"{name}: some logits of the {split} images are no finite numbers: train it again")
        print(f"{name}: predicted {len(images):,} {split} images")
        return logits

    paths.PREDICTIONS.mkdir(parents=True, exist_ok=True)
    paths.SCRATCH.mkdir(parents=True, exist_ok=True)
    unfinished = paths.SCRATCH / f"predictions-{name}.npz"
    np.savez(unfinished, val_logits=logits_of("val"), test_logits=logits_of("test"))
    unfinished.replace(paths.PREDICTIONS / f"{name}.npz")


if __name__ == "__main__":
    with one_line_errors("predict"):
        main()
