"""Stage `compare`: all models side by side, as text, tables and pictures."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from stages.common import paths
from stages.common.errors import UserError, one_line_errors
from stages.common.files import read_json, write_json, write_text
from stages.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from stages.data.dataset import Prepared
from stages.evaluation import comparison, predictions, robustness, tables
from stages.evaluation.summary import Answers
from stages.inference.exported import Exported
from stages.models import params
from stages.report import claims
from stages.report.candidate import Candidate, by_validation
from stages.report.comparison import NOTEBOOKS, render
from stages.report.method import published
from stages.report.plots import confusion, gallery, style
from stages.report.plots import robustness as robustness_plots
from stages.report.plots.calibration import reliability
from stages.report.plots.contact_sheet import contact_sheet
from stages.report.plots.learning_curves import learning_curves
from stages.report.plots.pareto import accuracy_against_cost
from stages.report.plots.top1 import top1
from stages.report.verdict import verdict

matplotlib.use("Agg")

EXAMPLE_OF_CORRUPTIONS = 3  # which of the test pictures shows them: any would do


def main() -> None:
    prepared = Prepared.open(paths.PREPARED)
    names = list(params.read().models)
    of_test = {name: predictions.of_split(name, prepared, "test") for name in names}
    metrics = {name: _json(paths.METRICS / f"{name}.json", name) for name in names}
    temperatures = {name: metrics[name]["calibration"]["temperature"] for name in names}
    altered = {name: predictions.to_altered(name, prepared) for name in names}
    clean = {
        name: Answers(of_test[name].logits[rows], of_test[name].labels[rows]) for name, (rows, _) in altered.items()
    }
    robust = {
        name: robustness.summarize(
            clean[name],
            altered[name][1],
            of_test[name].logits,
            predictions.to_foreign(name, prepared),
            metrics[name]["unfamiliar"]["threshold"],
            temperatures[name],
        )
        for name in names
    }
    candidates = [
        Candidate(
            name,
            metrics[name],
            _json(paths.PROFILES / f"{name}.json", name),
            _json(paths.RUNS / name / "run.json", name),
            robust[name],
        )
        for name in names
    ]
    logits = {name: found.logits for name, found in of_test.items()}
    findings = {
        "altered_pictures": len(clean[names[0]].labels),
        **comparison.compare(logits, of_test[names[0]].labels, temperatures),
        "int8": {name: found for name in names if (found := Exported.open(name).description.get("int8"))},
    }
    about = prepared.superclass_names, prepared.superclass_of_class
    of_each = {
        "curves": {name: _csv(paths.RUNS / name / "history.csv", f"dvc repro train@{name}") for name in names},
        "steps": {name: _csv(paths.RUNS / name / "steps.csv", f"dvc repro train@{name}") for name in names},
        "classes": {name: tables.classes(found, prepared.class_names, *about) for name, found in of_test.items()},
        "superclasses": {name: tables.superclasses(found, *about) for name, found in of_test.items()},
        "reliability": {name: tables.reliability(found, temperatures[name]) for name, found in of_test.items()},
        "robustness": {name: tables.robustness(clean[name], altered[name][1]) for name in names},
    }
    figures = _figures(prepared, candidates, findings, of_each)

    _write_folder(paths.PLOTS, {f"{name}.png": partial(style.save, figure) for name, figure in figures.items()})
    _write_folder(
        paths.TABLES, {f"{name}.csv": partial(_save_csv, tables.joined(own)) for name, own in of_each.items()}
    )
    write_json(paths.ROBUSTNESS_METRICS, robust)
    write_json(
        paths.COMPARISON_DATA,
        {
            "verdict": verdict(by_validation(candidates), findings, prepared.description),
            **findings,
            "facts": {c.name: {"cost": c.profile, "training": published(c.run)} for c in candidates},
            "dataset": prepared.description,
        },
    )
    write_text(paths.COMPARISON, render(candidates, findings, prepared.description, list(figures)))
    studies = {file.stem: _csv(file, "make study") for file in sorted(paths.STUDIES.glob("*.csv"))}
    write_text(paths.CLAIMS, claims.render(candidates, findings, prepared.description, studies, of_each["steps"]))
    print(f"compared {', '.join(names)}: {paths.COMPARISON}")


def _figures(
    prepared: Prepared,
    candidates: Sequence[Candidate],
    findings: Mapping[str, Any],
    of_each: Mapping[str, Mapping[str, pd.DataFrame]],
) -> dict[str, Figure]:
    names = [candidate.name for candidate in candidates]
    images, _ = prepared.split("test")
    classes, counts = prepared.class_names, prepared.description["counts"]
    costs = {"latency": "milliseconds a picture (median)", "minutes": "minutes of training"}
    points = {
        candidate.name: {
            **{key: candidate.test[key] for key in ("top1", "top1_low", "top1_high")},
            "latency": candidate.profile["latency_p50_ms"],
            "minutes": candidate.profile["training_seconds"] / 60,
        }
        for candidate in candidates
    }
    example = images[[EXAMPLE_OF_CORRUPTIONS]]
    examples = {
        name: np.concatenate([example, *(corrupt(example, name, severity, 0) for severity in SEVERITIES)])
        for name in CORRUPTIONS
    }
    confused = {name: findings["models"][name]["confused_pairs"] for name in names}
    return {
        "top1": top1(
            {name: [point[key] for key in ("top1", "top1_low", "top1_high")] for name, point in points.items()},
            NOTEBOOKS if prepared.source == "cifar100" else {},
            title=f"Top-1 on {counts['test']:,} test pictures of {prepared.source}, with 95 % intervals",
        ),
        "learning_curves": learning_curves(of_each["curves"], of_each["steps"], len(classes)),
        "pareto": accuracy_against_cost(points, costs),
        "reliability": reliability(of_each["reliability"]),
        "robustness": robustness_plots.robustness(of_each["robustness"]),
        "corruptions": robustness_plots.corruption_examples(examples),
        "confused_pairs": confusion.confused_pairs(confused, classes, counts["test"] // len(classes)),
        "class_accuracy": confusion.class_accuracy(
            {name: table["top1"].to_numpy() for name, table in of_each["classes"].items()}, classes
        ),
        **{
            f"superclass_confusion_{name}": confusion.superclass_confusion(
                _counts(table, prepared.superclass_names), prepared.superclass_names, title=f"{name}: answers on test"
            )
            for name, table in of_each["superclasses"].items()
        },
        "mistakes": gallery.mistakes(images, {name: findings["models"][name]["mistakes"] for name in names}, classes),
        "suspects": gallery.suspects(images, findings["missed_by_all"]["suspects"], classes),
        "contact_sheet": contact_sheet(
            *prepared.split("train"), classes, prepared.superclass_names, prepared.superclass_of_class
        ),
    }


def _write_folder(folder: Path, files: Mapping[str, Callable[[Path], None]]) -> None:
    """All files in a folder of their own, then renamed: what a model that is gone left behind does not stay."""
    unfinished = paths.SCRATCH / folder.name
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for name, write in files.items():
        write(unfinished / name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished.rename(folder)


def _save_csv(table: pd.DataFrame, file: Path) -> None:
    table.to_csv(file, index=False, float_format="%.6g", lineterminator="\n")


def _counts(table: pd.DataFrame, superclass_names: Sequence[str]) -> np.ndarray:
    counts = table.pivot(index="actual", columns="predicted", values="pictures")
    return counts.loc[list(superclass_names), list(superclass_names)].to_numpy()


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
