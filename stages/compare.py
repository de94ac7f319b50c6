"""Stage `compare`: all models side by side, as text, tables and figures."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from stages.common import paths
from stages.common.errors import UserError, one_line_errors
from stages.common.files import read_json, replacing_folder, write_json, write_text
from stages.data.dataset import Prepared
from stages.evaluation import baselines, model_comparison, predictions, robustness, studies, tables
from stages.evaluation.summary import rounded, top1_with_interval
from stages.inference.exported import Exported, chosen
from stages.models import params
from stages.report import checks, claims, figures, render
from stages.report.candidate import Candidate, summary


def main() -> None:
    matplotlib.use("Agg")
    prepared = Prepared.open(paths.PREPARED)
    dataset, names = prepared.description, list(params.read().models)
    test = {name: predictions.of_split(name, prepared, "test") for name in names}
    shifted = {name: predictions.under_shift(name, prepared, test[name]) for name in names}
    candidates = [_candidate(name, shifted[name]) for name in names]
    temperatures = {c.name: c.metrics["calibration"]["temperature"] for c in candidates}
    logits, labels = {name: own.logits for name, own in test.items()}, test[names[0]].labels
    metrics = {c.name: c.metrics for c in candidates}
    comparison = {
        "near_duplicates": _near_duplicates(metrics),
        "corrupted_images": len(shifted[names[0]].clean.labels),
        **model_comparison.compare(logits, labels, metrics, {name: _right(name, prepared) for name in names}),
        "int8": {name: int8 for name in names if (int8 := Exported.open(name).description.get("int8"))},
        "baselines": _baselines(prepared),
    }
    runs = {name: _run(name) for name in names}
    by_model = {
        "curves": {name: _csv(runs[name] / "history.csv", f"dvc repro train@{name}") for name in names},
        "steps": {name: _csv(runs[name] / "steps.csv", f"dvc repro train@{name}") for name in names},
        "learning": {name: _learning(name) for name in names},
        "classes": {name: tables.classes(test[name], prepared) for name in names},
        "superclasses": {name: tables.superclasses(test[name], prepared) for name in names},
        "reliability": {name: tables.reliability(test[name], temperatures[name]) for name in names},
        "robustness": {name: robustness.top1_by_severity(shifted[name]) for name in names},
    }
    joined = {key: tables.joined(found) for key, found in by_model.items()} | {"summary": summary(candidates)}
    studied = studies.read(paths.STUDIES, {c.name: c.run for c in candidates})
    judged = claims.judge(candidates, comparison["pairs"], dataset, studied, joined["learning"])
    comparison |= rounded(
        {
            "claims": {name: asdict(claim) for name, claim in judged.items()},
            "equal_minutes": _equal_minutes(studied.get("equal_minutes"), names),
            "studies": list(studied),
        }
    )
    facts = checks.Facts(candidates, comparison, dataset, joined["classes"], joined["learning"])
    comparison["checks"] = checks.fired(facts)

    # In folders of their own: what a model that is gone left behind does not stay.
    with replacing_folder(paths.PLOTS) as folder:
        of_studies = {"equal_minutes": studied.get("equal_minutes", pd.DataFrame())}
        drawn = figures.write(folder, prepared, joined | of_studies, comparison)
    with replacing_folder(paths.TABLES) as folder:
        for name, table in joined.items():
            table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
    write_json(paths.ROBUSTNESS_METRICS, {c.name: dict(c.robustness) for c in candidates})
    write_json(
        paths.COMPARISON_DATA,
        {
            "verdict": render.recommendation(candidates, comparison, dataset),
            **comparison,
            "facts": {c.name: {"cost": c.profile, "training": c.published} for c in candidates},
            "dataset": dataset,
        },
    )
    write_text(paths.COMPARISON, render.comparison(candidates, comparison, dataset, drawn))
    write_text(paths.CLAIMS, render.claims(comparison, dataset, drawn))
    print(f"compared {', '.join(names)}: {paths.COMPARISON}")


def _candidate(name: str, shifted: robustness.Shifted) -> Candidate:
    metrics, cost = (_json(folder / f"{name}.json", name) for folder in (paths.METRICS, paths.PROFILES))
    seeds = chosen(name)
    runs = {seed: _json(paths.RUNS / name / seed / "run.json", name) for seed in seeds["val_top1"]}
    run = runs[str(seeds["seed"])]
    return Candidate(name, metrics, cost, run, robustness.summarize(shifted), list(runs.values()))


def _right(name: str, prepared: Prepared) -> np.ndarray:
    """(S, N) bool: which test images each seed classifies correctly."""
    by_seed = predictions.by_seed(name, prepared, "test").values()
    return np.stack([own.right for own in by_seed])


def _run(name: str) -> Path:
    """Of the chosen seed."""
    return paths.RUNS / name / str(chosen(name)["seed"])


def _near_duplicates(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """How many test images have one in train, and top-1 of each model on all test images and without those."""
    found = read_json(paths.NEAR_DUPLICATES, "run `dvc repro duplicates`")
    top1 = {
        name: {"all": own["test"]["top1"], "without": without["top1"]}
        | {end: without[f"top1_{end}"] for end in ("low", "high")}
        for name, own in metrics.items()
        if (without := own["test_without_near_duplicates"])
    }
    test = found["test"]
    return {
        "images": test["with_near_duplicate"],
        "share": test["share"],
        "threshold": found["threshold"],
        "top1": top1,
    }


def _baselines(prepared: Prepared) -> dict[str, Any]:
    """Top-1 of the trivial classifiers on val and test, by name."""
    train, splits = prepared.split("train"), {split: prepared.split(split) for split in ("val", "test")}
    right = {
        "linear model on pixels": baselines.linear(train, splits),
        "most frequent class": baselines.majority(train[1], splits),
    }
    return rounded(
        {name: {split: top1_with_interval(own) for split, own in found.items()} for name, found in right.items()}
    )


def _learning(name: str) -> pd.DataFrame:
    """learning.csv of all seeds, `seed` its first column."""
    folder, remedy = paths.RUNS / name, f"dvc repro train@{name}"
    by_seed = {int(seed): _csv(folder / seed / "learning.csv", remedy) for seed in chosen(name)["val_top1"]}
    return tables.joined(by_seed, "seed")


def _equal_minutes(study: pd.DataFrame | None, names: list[str]) -> list[dict[str, Any]]:
    """What each model reached in the same minutes, the mean of its seeds: minutes, models (top1, images, or None)."""
    if study is None:
        return []
    means = study.groupby(["minutes", "model"])[["val_top1", "images"]].mean()
    of_model = {key: {"top1": row["val_top1"], "images": row["images"]} for key, row in means.iterrows()}
    minutes = sorted(study["minutes"].unique().tolist())
    return [{"minutes": each, "models": {name: of_model.get((each, name)) for name in names}} for each in minutes]


def _json(file: Path, model: str) -> dict[str, Any]:
    remedy = f"run `dvc repro`; a new model must also stand under `pipeline` in dvc.yaml, {model!r} for this one"
    return read_json(file, remedy)


def _csv(file: Path, command: str) -> pd.DataFrame:
    try:
        return pd.read_csv(file)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file} ({error}): run `{command}`") from error


if __name__ == "__main__":
    with one_line_errors("compare"):
        main()
