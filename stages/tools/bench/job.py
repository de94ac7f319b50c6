"""What is measured, and a process of its own for each measurement: frameworks, threads and peaks of memory never meet.

Light on purpose: a process starts with the peak of memory of the one that started it.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, Self

import numpy as np

from stages.common.errors import UserError, one_line_errors
from stages.common.settings import Compute
from stages.data.dataset import Prepared
from stages.models import classifier_class, settings_class
from stages.models.base import Classifier, Examples
from stages.models.params import Params

RANDOM_PICTURES, RANDOM_CLASSES, RANDOM_SIZE = 10_000, 100, 32  # shaped like CIFAR-100
WORKERS = min(4, max(2, Compute().cpu_threads))  # processes that load pictures in a notebook: 2 to 4
PATIENCE = 300.0  # seconds
_STAGE = "measuring"  # what a process calls itself where it stops


@dataclass(frozen=True)
class Job:
    """One model on one data set. All fields are JSON.

    model: its name in params.yaml. settings: its section there. compute: that section, with the number of threads.
    num_classes, image_size (pixels): of the data.
    data: the folder of a prepared data set; None: random pictures.
    scratch: a folder for checkpoints and the tracking database, absolute.
    """

    model: str
    settings: dict[str, Any]
    compute: dict[str, Any]
    seed: int
    num_classes: int
    image_size: int
    data: str | None
    scratch: str

    @classmethod
    def of(cls, params: Params, model: str, prepared: Prepared | None, scratch: str) -> Self:
        """A model of params.yaml, trained as a whole, from random weights, on one device."""
        settings = params.model(model).model_dump()
        one_device = {"devices": 1, "num_nodes": 1, "strategy": "auto"}
        changes = {"weights": "random", "finetune": "full"}
        return cls(
            model=model,
            settings=settings | {key: value for key, value in changes.items() if key in settings},
            compute=params.compute.model_dump() | one_device | {"threads": params.compute.cpu_threads},
            seed=params.seed,
            num_classes=len(prepared.class_names) if prepared else RANDOM_CLASSES,
            image_size=prepared.image_size if prepared else RANDOM_SIZE,
            data=str(prepared.folder) if prepared else None,
            scratch=scratch,
        )

    def start(self) -> tuple[Classifier, Compute]:
        """The classifier, its framework set up as `compute` says."""
        compute = Compute.model_validate(self.compute)
        kind = classifier_class(self.settings["classifier"])
        kind.configure(compute)
        settings = settings_class(self.settings["classifier"]).model_validate(self.settings)
        classifier = kind(settings, self.num_classes, self.image_size, self.seed)
        classifier.resolve(compute)
        return classifier, compute

    def examples(self, split: str) -> Examples:
        """The pictures of `train` or `val`; random ones are the same for both."""
        if self.data:
            return Examples(*Prepared.open(self.data).split(split))
        rng = np.random.default_rng(self.seed)
        shape = (RANDOM_PICTURES, self.image_size, self.image_size, 3)
        return Examples(rng.integers(0, 256, shape, np.uint8), rng.integers(0, self.num_classes, RANDOM_PICTURES))

    def run(self, function: str, *arguments: float, patience: float = PATIENCE) -> dict[str, Any]:
        """Call `function` (module.name in this package) with this job and the arguments, in a process of its own.

        UserError where it meets one, does not come back within `patience` seconds, or is killed.
        """
        arguments_json = [json.dumps(asdict(self)), json.dumps(arguments)]
        remedy = f"give models.{self.model} a smaller batch_size"
        return run_program(f"{self.model}, {function}", remedy, __name__, function, *arguments_json, patience=patience)


def run_program(what: str, remedy: str, module: str, *arguments: str, patience: float = PATIENCE) -> dict[str, Any]:
    """Run `python -m module` and read the JSON of its last line.

    what, remedy: for the UserError where it says one, does not end within `patience` seconds, or is killed.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=patience
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"{what} took more than {patience / 60:.0f} minutes: stop what else runs here, or {remedy}"
        ) from error
    if done.returncode < 0:
        raise UserError(f"{what} was killed by signal {-done.returncode}; where memory does not suffice, {remedy}")
    if done.returncode and "Traceback" in done.stderr:
        raise RuntimeError(f"{what} failed:\n{done.stderr}")
    if done.returncode:
        raise UserError(done.stderr.strip().splitlines()[-1].removeprefix(f"{_STAGE}: "))
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    module, name = sys.argv[1].split(".")
    job, arguments = Job(**json.loads(sys.argv[2])), json.loads(sys.argv[3])
    result = getattr(import_module(f"stages.tools.bench.{module}"), name)(job, *arguments)
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    with one_line_errors(_STAGE):
        main()
