"""Stage `compare`: all models side by side, as text, tables and figures."""

from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import pandas as pd

from stages.common import paths
from stages.common.errors import UserError, one_line_errors
from stages.common.files import read_json, replacing_folder, write_json, write_text
from stages.data.dataset import Prepared
from stages.evaluation import model_comparison, predictions, robustness, tables
from stages.evaluation.summary import Predictions
from stages.inference.exported import Exported
from stages.models import params
from stages.report import claims, figures, render
from stages.report.candidate import Candidate, summary


class Measured(NamedTuple):
    """What the stages before found of a model: its facts, its predictions on test, its tables by name."""

    candidate: Candidate
    test: Predictions
    corrupted_images: int
    tables: dict[str, pd.DataFrame]


def main() -> None:
    matplotlib.use("Agg")
    prepared = Prepared.open(paths.PREPARED)
    dataset = prepared.description
    models = {name: _measured(name, prepared) for name in params.read().models}
    first, candidates = next(iter(models.values())), [model.candidate for model in models.values()]
    temperatures = {c.name: c.metrics["calibration"]["temperature"] for c in candidates}
    logits = {name: model.test.logits for name, model in models.items()}
    comparison = {
        "corrupted_images": first.corrupted_images,
        **model_comparison.compare(logits, first.test.labels, temperatures),
        "int8": {name: int8 for name in models if (int8 := Exported.open(name).description.get("int8"))},
    }
    joined = {key: tables.joined({name: model.tables[key] for name, model in models.items()}) for key in first.tables}
    joined["summary"] = summary(candidates)
    studies = {file.stem: _csv(file, "make study") for file in sorted(paths.STUDIES.glob("*.csv"))}
    judged = claims.judge(candidates, comparison["pairs"], prepared.data_sha256, studies, joined["steps"])

    # In folders of their own: what a model that is gone left behind does not stay.
    with replacing_folder(paths.PLOTS) as folder:
        drawn = figures.write(folder, prepared, joined, comparison)
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
    write_text(paths.CLAIMS, render.claims(judged, dataset))
    print(f"compared {', '.join(models)}: {paths.COMPARISON}")


def _measured(name: str, prepared: Prepared) -> Measured:
    test = predictions.of_split(name, prepared, "test")
    shifted = predictions.under_shift(name, prepared, test)
    metrics = _json(paths.METRICS / f"{name}.json", name)
    candidate = Candidate(
        name,
        metrics,
        _json(paths.PROFILES / f"{name}.json", name),
        _json(paths.RUNS / name / "run.json", name),
        robustness.summarize(shifted, test.logits, metrics),
    )
    own = {
        "curves": _csv(paths.RUNS / name / "history.csv", f"dvc repro train@{name}"),
        "steps": _csv(paths.RUNS / name / "steps.csv", f"dvc repro train@{name}"),
        "classes": tables.classes(test, prepared),
        "superclasses": tables.superclasses(test, prepared),
        "reliability": tables.reliability(test, metrics["calibration"]["temperature"]),
        "robustness": robustness.top1_by_severity(shifted),
    }
    return Measured(candidate, test, len(shifted.clean.labels), own)


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
