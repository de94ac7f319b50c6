"""Stage `compare`: all models side by side, as text and pictures."""

import shutil

import matplotlib
import pandas as pd

from stages import outputs, params, paths
from stages.datasets.prepared import Prepared
from stages.errors import UserError, one_line_errors
from stages.plots import style
from stages.plots.contact_sheet import contact_sheet
from stages.plots.learning_curves import learning_curves
from stages.plots.top1 import top1
from stages.report import NOTEBOOKS, Candidate, render

matplotlib.use("Agg")


def main() -> None:
    prepared = Prepared.open(paths.PREPARED)
    candidates = [_candidate(name) for name in params.read().models]
    histories = {candidate.name: _history(candidate.name) for candidate in candidates}
    paths.PLOTS.mkdir(parents=True, exist_ok=True)
    paths.CURVES.mkdir(parents=True, exist_ok=True)
    others = NOTEBOOKS if prepared.source == "cifar100" else {}
    figures = {
        "top1": top1(
            {candidate.name: candidate.test_top1 for candidate in candidates},
            others,
            title=f"Top-1 on {prepared.description['counts']['test']:,} test pictures of {prepared.source}",
        ),
        "learning_curves": learning_curves(histories, len(prepared.class_names)),
        "contact_sheet": contact_sheet(
            *prepared.split("train"), prepared.class_names, prepared.superclass_names, prepared.superclass_of_class
        ),
    }
    for name, figure in figures.items():
        style.save(figure, paths.PLOTS / f"{name}.png")
    for name in histories:
        # Copies that git keeps: `dvc plots diff` compares the curves of two commits.
        shutil.copyfile(paths.RUNS / name / "history.csv", paths.CURVES / f"{name}.csv")
    pictures = {
        "Top-1 on test": "plots/top1.png",
        "Learning curves": "plots/learning_curves.png",
        "The pictures": "plots/contact_sheet.png",
    }
    outputs.write_text(paths.COMPARISON, render(candidates, prepared.description, pictures))
    print(f"compared {', '.join(histories)}: {paths.COMPARISON}")


def _candidate(name: str) -> Candidate:
    remedy = f"run `dvc repro`; a new model must also stand under `pipeline` in dvc.yaml, {name!r} for this one"
    files = (paths.METRICS / f"{name}.json", paths.PROFILES / f"{name}.json", paths.RUNS / name / "run.json")
    return Candidate(name, *(outputs.read_json(file, remedy) for file in files))


def _history(name: str) -> pd.DataFrame:
    file = paths.RUNS / name / "history.csv"
    try:
        return pd.read_csv(file)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file} ({error}): run `dvc repro train@{name}`") from error


if __name__ == "__main__":
    with one_line_errors("compare"):
        main()
