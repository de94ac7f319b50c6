"""Stage `robustness`: the logits of one exported model for corrupted test images and for out-of-distribution ones."""

import argparse

import numpy as np

from stages.common import params, paths
from stages.common.errors import one_line_errors
from stages.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from stages.data.dataset import Prepared
from stages.data.ood import foreign
from stages.inference.exported import Exported


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a key of models in params.yaml")
    name = parser.parse_args().model
    settings = params.read()
    settings.model(name)
    network = Exported.open(name).load(settings.compute.cpu_threads)
    prepared = Prepared.open(paths.PREPARED)
    images, _ = prepared.split("test")
    # The same images for every model and every training.
    seed, count = settings.data.seed, min(settings.robustness.images, len(images))
    rows = np.sort(np.random.default_rng(seed).permutation(len(images))[:count])
    chosen = images[rows]
    answers: dict[str, np.ndarray] = {"rows": rows}
    for corruption in CORRUPTIONS:
        answers[f"corrupted_{corruption}"] = np.stack(
            [network.logits(corrupt(chosen, corruption, severity, seed)) for severity in SEVERITIES]
        )
        print(f"{name}: answered {len(SEVERITIES) * count:,} images with {corruption}", flush=True)
    for kind, strangers in foreign(count, prepared.image_size, prepared.source, seed).items():
        answers[f"foreign_{kind}"] = network.logits(strangers)
    paths.ROBUSTNESS.mkdir(parents=True, exist_ok=True)
    paths.SCRATCH.mkdir(parents=True, exist_ok=True)
    unfinished = paths.SCRATCH / f"robustness-{name}.npz"
    np.savez(unfinished, **answers)  # type: ignore[arg-type] # NumPy's stubs take its names for options
    unfinished.replace(paths.ROBUSTNESS / f"{name}.npz")


if __name__ == "__main__":
    with one_line_errors("robustness"):
        main()
