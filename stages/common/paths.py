"""Every path of the pipeline, once. Relative to the repository root, where DVC runs the stages."""

import os
from pathlib import Path

PARAMS = Path("params.yaml")

DATA = Path("data")
RAW = DATA / "raw"  # the archive, as downloaded or generated
PREPARED = DATA / "prepared"
MODELS = DATA / "models"  # one folder per model and seed: weights, classifier.json
ONNX = DATA / "onnx"  # one folder per model: chosen.json, and for each seed model.onnx, export.json
RUNS = DATA / "runs"  # one folder per model and seed: history.csv, run.json
PREDICTIONS = DATA / "predictions"  # one .npz per model
ROBUSTNESS = DATA / "robustness"  # one .npz per model: logits on corrupted and on out-of-distribution images
DUPLICATES = DATA / "duplicates.npz"  # of val, gate and test: the nearest training image, and how similar it is
PROFILES = DATA / "profiles"  # one .json per model
REGISTERED = DATA / "registered.json"  # which packages this working copy has registered; never leaves it
SCRATCH = DATA / "scratch"  # git-ignored: partial downloads, half-written outputs

REPORTS = Path("reports")
METRICS = REPORTS / "metrics"  # one .json per model
PLOTS = REPORTS / "plots"
TABLES = REPORTS / "tables"  # what the figures show, as CSV, all models in each
STUDIES = REPORTS / "studies"  # results of `make study`, one .csv and .png each
NEAR_DUPLICATES = REPORTS / "near_duplicates.json"  # how many there are; beside it a .png with pairs
NOTEBOOKS = REPORTS / "notebooks.json"  # figures that were printed elsewhere, with their source
COMPARISON = REPORTS / "comparison.md"
ROBUSTNESS_METRICS = REPORTS / "robustness.json"
COMPARISON_DATA = REPORTS / "comparison.json"  # every number of it
CLAIMS = REPORTS / "claims.md"
REGISTERED_MODEL = REPORTS / "registered_model.json"


def repository_root() -> Path:
    """The real repository, absolute: also where DVC runs a stage in a temporary copy of it (experiments, queues)."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()
