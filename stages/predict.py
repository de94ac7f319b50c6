"""Stage `predict`: the logits of one exported model, of each of its seeds, for the images of val, gate and test."""

import numpy as np

from stages.common import paths
from stages.common.errors import UserError, one_line_errors
from stages.common.files import write_arrays
from stages.data.dataset import Prepared
from stages.inference.exported import Exported, chosen
from stages.models import params


def main() -> None:
    name, settings = params.read_for_model(__doc__)
    prepared, found = Prepared.open(paths.PREPARED), chosen(name)
    arrays = {"seed": np.array(found["seed"])}  # of those without a number
    for seed in map(int, found["val_top1"]):
        network = Exported.open(name, seed).load(settings.compute.cpu_threads)
        for split in ("val", "gate", "test"):
            images, _ = prepared.split(split)
            logits = network.logits(images)
            if not np.isfinite(logits).all():
                raise UserError(
                    f"{name}, seed {seed}: some logits of the {split} images are not finite: train it again"
                )
            arrays[f"{split}_logits" if seed == found["seed"] else f"{split}_logits_{seed}"] = logits
            print(f"{name}, seed {seed}: predicted {len(images):,} {split} images")
    write_arrays(paths.PREDICTIONS / f"{name}.npz", arrays)


if __name__ == "__main__":
    with one_line_errors("predict"):
        main()
