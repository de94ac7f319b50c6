"""The types of settings, and what those of every classifier have in common."""

import os
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


# YAML 1.1 readers take 1e-3 (without a dot) for text: a number may be text, but not true or false.
Number = Annotated[float, BeforeValidator(_no_truth_value), Field(strict=False, allow_inf_nan=False)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
ProperFraction = Annotated[Number, Field(ge=0, lt=1)]
NonNegative = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # NumPy's old generator, which Keras seeds, takes no more
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A section of params.yaml: unknown keys, wrong types and impossible values are errors, nothing is coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Compute(Section):
    """Where and how to compute; not what: results differ between settings only by rounding."""

    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    devices: Count | Literal["auto"] = 1
    num_nodes: Count = 1
    strategy: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: Count | None = None
    deterministic: bool = True
    checkpoint_minutes: Positive = 5.0

    @property
    def cpu_threads(self) -> int:
        """How many threads to use: those asked for, else one for each core this process may run on."""
        if self.threads is not None:
            return self.threads
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    @property
    def on_cpu(self) -> "Compute":
        """The same on the CPU: where figures of two frameworks are compared, and where models are served."""
        return self.model_copy(update={"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"})


def process_rank() -> int:
    """Which of a training's processes this is; rank 0 logs."""
    # torchrun; Lightning's own launcher, which may itself run within a SLURM job; srun.
    for variables in (("RANK",), ("NODE_RANK", "LOCAL_RANK"), ("SLURM_PROCID",)):
        ranks = [int(os.environ[name]) for name in variables if os.environ.get(name, "").isdecimal()]
        if ranks:
            return max(ranks)
    return 0


def started_processes() -> int:
    """How many processes torchrun or srun started for this training; 1 where neither did."""
    for variable in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        if os.environ.get(variable, "").isdecimal():
            return int(os.environ[variable])
    return 1


class ClassifierSettings(Section):
    """The settings that the pipeline itself reads; each classifier's own Settings add to them."""

    classifier: str
    epochs: Count | None
    batch_size: Count
    crop_padding: Annotated[int, Field(ge=0, le=16)]
    flip: bool


class FinetuneSettings(ClassifierSettings):
    """What the settings of classifiers with a pretrained backbone have in common."""

    weights: str
    finetune: Literal["full", "head"]
