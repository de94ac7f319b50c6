"""Stage `robustness`: the logits of one exported model for corrupted test images and for out-of-distribution ones."""

import numpy as np

from stages.common import paths
from stages.common.errors import one_line_errors
from stages.common.files import write_arrays
from stages.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from stages.data.dataset import Prepared
from stages.data.ood import ood_images
from stages.inference.exported import Exported
from stages.models import params


def main() -> None:
    name, settings = params.read_for_model(__doc__)
    network = Exported.open(name).load(settings.compute.cpu_threads)
    prepared = Prepared.open(paths.PREPARED)
    images, _ = prepared.split("test")
    # The same images for every model and every training.
    seed, count = settings.data.seed, min(settings.robustness.images, len(images))
    rows = np.sort(np.random.default_rng(seed).permutation(len(images))[:count])
    arrays = {"rows": rows}
    for corruption in CORRUPTIONS:
        corrupted = (corrupt(images[rows], corruption, severity, seed) for severity in SEVERITIES)
        arrays[f"corrupted_{corruption}"] = np.stack([network.logits(some) for some in corrupted])
        print(f"{name}: predicted {len(SEVERITIES) * count:,} images with {corruption}", flush=True)
    for half, split in enumerate(("val", "test")):  # val's choose the score, test's are reported
        images, labels = prepared.split(split)
        rows = np.sort(np.random.default_rng(seed).permutation(len(images))[: settings.robustness.images // 2])
        for kind, some in ood_images(images[rows], labels[rows], prepared.source, seed, half).items():
            arrays[f"ood_{split}_{kind}"] = network.logits(some)
    write_arrays(paths.ROBUSTNESS / f"{name}.npz", arrays)


if __name__ == "__main__":
    with one_line_errors("robustness"):
        main()
