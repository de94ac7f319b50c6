"""Every path of the pipeline, once. Relative to the repository root, where DVC runs the stages."""

import os
from pathlib import Path

PARAMS = Path("params.yaml")

DATA = Path("data")
RAW = DATA / "raw"  # the archive, as downloaded or generated
PREPARED = DATA / "prepared"
MODELS = DATA / "models"  # one folder per model: weights, classifier.json
RUNS = DATA / "runs"  # one folder per model: history.csv, run.json
PREDICTIONS = DATA / "predictions"  # one .npz per model
PROFILES = DATA / "profiles"  # one .json per model
SCRATCH = DATA / "scratch"  # git-ignored: downloads in flight, half-written outputs

REPORTS = Path("reports")
METRICS = REPORTS / "metrics"  # one .json per model
PLOTS = REPORTS / "plots"
CURVES = REPORTS / "curves"  # one .csv per model: a row per epoch
COMPARISON = REPORTS / "comparison.md"
REGISTERED_MODEL = REPORTS / "registered_model.json"


def repository_root() -> Path:
    """The real repository, absolute: also where DVC runs a stage in a temporary copy of it (experiments, queues)."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()
