"""What `make study` does: small experiments behind reports/claims.md, each a DVC experiment, as tables and figures."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import pandas as pd

from stages.common import paths
from stages.common.errors import UserError, one_line_errors
from stages.common.files import json_sha256, write_json, write_text
from stages.evaluation import studies
from stages.models import params
from stages.models.params import KINDS, Params
from stages.report import charts
from stages.tools import experiments, provenance
from stages.tools.experiments import DVC

NAME = "study"
EPOCHS_OF_SHARE = {0.01: 10, 0.05: 5, 0.2: 2, 1.0: 1}  # a hundredth of the images, seen once, would teach nothing


@dataclass(frozen=True)
class Study:
    """A question, put to some models.

    models: None for all of params.yaml. settings: for each value of what is varied the parameters to set, dotted keys
    of params.yaml with {model} for the name; fixed: those of all values, by their own names: columns of the table, too.
    label, form: of the axis and its values. by_time: whether to draw top-1 against minutes, too. column: what the
    table calls the values beside `value`.
    """

    models: tuple[str, ...] | None
    settings: Mapping[float, Mapping[str, Any]]
    label: str
    form: str = "~g"
    by_time: bool = True
    fixed: Mapping[str, Any] = field(default_factory=dict)
    column: str = "value"


def _budget(kind: str, amount: float) -> dict[str, Any]:
    """Of all models alike, whatever params.yaml says."""
    return {f"budget.{each}": amount if each == kind else "null" for each in KINDS} | {"models.{model}.epochs": "null"}


STUDIES = {
    "data_efficiency": Study(
        None,
        {share: {"budget.train_fraction": share, **_budget("epochs", n)} for share, n in EPOCHS_OF_SHARE.items()},
        f"share of the training images, for {', '.join(map(str, EPOCHS_OF_SHARE.values()))} epochs",
        form=".0%",
        by_time=False,  # with other numbers of epochs, a smaller share takes no less of it
    ),
    "patch_size": Study(
        ("vit_scratch",), {size: {"models.{model}.patch_size": size} for size in (8, 4)}, "side of a patch in pixels"
    ),
    "epochs": Study(
        ("vit_scratch",),
        {epochs: {"models.{model}.epochs": epochs} for epochs in (1, 3, 10)},
        "epochs",
        fixed={"models.{model}.patch_size": 8},  # a fourth of the tokens: fourteen epochs in a quarter of an hour
    ),
    "equal_minutes": Study(
        None,
        {minutes: _budget("minutes", minutes) for minutes in (4, 11)},
        "minutes of training for each model",
        by_time=False,
        column="minutes",
    ),
}


class Trial(NamedTuple):
    """Trainings of a study, one for each seed, by one experiment. settings: what is set, dotted keys of params.yaml."""

    study: str
    model: str
    value: float
    settings: Mapping[str, Any]
    name: str

    @classmethod
    def of(cls, study: str, model: str, value: float, seeds: int, current: Params) -> Self:
        """current: what the settings change. With other parameters, the experiment has another name."""
        chosen = {**STUDIES[study].fixed, **STUDIES[study].settings[value], "budget.seeds": seeds}
        settings = {key.format(model=model): setting for key, setting in chosen.items()}
        read = current.model_dump(include={"seed", "data", "budget", "compute"}), current.model(model).model_dump()
        name = f"{NAME}-{study}-{model}-{value:g}-{json_sha256([*read, settings])[:6]}"
        return cls(study, model, value, settings, name.replace("_", "-").replace(".", "_"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="*", help=f"some of {', '.join(STUDIES)}; all if none is named")
    parser.add_argument("--copy", action="append", default=[], help="a git-ignored path that trainings need (weights)")
    parser.add_argument("--seeds", type=int, default=1, help="how many to train each setting with (default: 1)")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.studies if name not in STUDIES]
    if unknown:
        raise UserError(f"there is no study {unknown[0]!r}: choose from {', '.join(STUDIES)}")
    commit, current = experiments.output("git", "rev-parse", "HEAD").strip(), params.read()
    trials = [
        Trial.of(name, model, value, arguments.seeds, current)
        for name in arguments.studies or STUDIES
        for model in STUDIES[name].models or current.models
        if model in current.models
        for value in STUDIES[name].settings
    ]
    known = _known(commit)
    missing = [trial for trial in trials if trial.name not in known]
    for trial in missing:
        options = [f"--set-param={key}={value}" for key, value in trial.settings.items()]
        options += [f"--copy-paths={path}" for path in arguments.copy]
        experiments.output(*DVC, "exp", "run", "--queue", "--name", trial.name, *options, f"evaluate@{trial.model}")
        print(f"{NAME}: queued {trial.name}", flush=True)
    if missing:
        experiments.run_queue(1, " ".join(["python -m stages.tools.study", *sys.argv[1:]]))
        known = _known(commit)
    trained = [(trial, run) for trial in trials for run in _trainings(trial, known.get(trial.name))]
    for name in dict.fromkeys(trial.study for trial in trials):
        write(name, [(trial, run) for trial, run in trained if trial.study == name])


def write(name: str, trained: Sequence[tuple[Trial, Mapping[str, Any]]]) -> None:
    """Table, figure and origin of a study in reports/studies; trained: trials with what they gave, as `_trainings`."""
    study, file = STUDIES[name], paths.STUDIES / f"{name}.csv"
    table = pd.DataFrame([_row(trial, run) for trial, run in trained])
    write_text(file, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    varied = sorted({key.rpartition(".")[2] for trial, _ in trained for key in trial.settings})
    settings = {trial.model: studies.of_run(run, varied) for trial, run in trained}
    origin = provenance.of_runs([run for _, run in trained])
    write_json(file.with_suffix(".json"), origin | {"varied": varied, "settings": settings})
    charts.save(charts.study(table, study.label, study.form, by_time=study.by_time), file.with_suffix(".png"))
    print(f"{NAME}: {file}, .json and .png")


def _known(commit: str) -> dict[str, dict[str, Any]]:
    """By name the experiments that ended well, run or wait."""
    return {one["name"]: one for one in experiments.read(NAME, commit) if one["state"] != "failed"}


def _trainings(trial: Trial, found: dict[str, Any] | None) -> list[dict[str, Any]]:
    """What `experiments.trainings` knows; UserError where they did not end well."""
    runs = experiments.trainings(found, trial.model) if found and found["metrics"] else []
    if not runs or any("seconds" not in run for run in runs):
        logs = f"`dvc queue logs {trial.name}`"
        raise UserError(f"{trial.name} failed or has not ended, or DVC's cache lost its results: {logs}")
    return runs


def _row(trial: Trial, run: Mapping[str, Any]) -> dict[str, Any]:
    study, resolved = STUDIES[trial.study], run["resolved"]
    row = {
        "model": trial.model,
        "value": trial.value,
        "seed": run["params"]["seed"],
        **{key: run[key] for key in ("val_top1", "test_top1", "epochs", "seconds")},
        "images": run["budget"]["images"],
        "minutes": run["seconds"] / 60,
        "precision": resolved["precision"],
        "cpu": run["hardware"]["cpu"],
        "threads": resolved["threads"],
        "weights": resolved.get("weights_sha256", "random")[:16],
        "data": run["data_sha256"][:16],
        **{key.rpartition(".")[2]: setting for key, setting in study.fixed.items()},
    }
    return row | {study.column: trial.value}


if __name__ == "__main__":
    with one_line_errors(NAME):
        main()
