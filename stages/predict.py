"""Stage `predict`: the logits of one exported model for the images of val, gate and test."""

import numpy as np

from stages.common import paths
from stages.common.errors import UserError, one_line_errors
from stages.common.files import write_arrays
from stages.data.dataset import Prepared
from stages.inference.exported import Exported
from stages.models import params


def main() -> None:
    name, settings = params.read_for_model(__doc__)
    network = Exported.open(name).load(settings.compute.cpu_threads)
    prepared = Prepared.open(paths.PREPARED)

    def logits_of(split: str) -> np.ndarray:
        images, _ = prepared.split(split)
        logits = network.logits(images)
        if not np.isfinite(logits).all():
            raise UserError(f"{name}: some logits of the {split} images are not finite: train it again")
        print(f"{name}: predicted {len(images):,} {split} images")
        return logits

    splits = ("val", "gate", "test")
    write_arrays(paths.PREDICTIONS / f"{name}.npz", {f"{split}_logits": logits_of(split) for split in splits})


if __name__ == "__main__":
    with one_line_errors("predict"):
        main()
