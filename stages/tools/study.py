"""What `make study` does: small experiments behind reports/claims.md, each a DVC experiment, as tables and figures."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from stages.common import paths
from stages.common.errors import UserError, one_line_errors
from stages.common.files import write_text
from stages.models import params
from stages.tools import charts, experiments
from stages.tools.experiments import DVC

NAME = "study"
EPOCHS_OF_SHARE = {0.01: 10, 0.05: 5, 0.2: 2, 1.0: 1}  # a hundredth of the images, seen once, would teach nothing


@dataclass(frozen=True)
class Study:
    """A question, put to some models.

    models: None for all of params.yaml. settings: for each value of what is varied the parameters to set, dotted keys
    of params.yaml with {model} for the name; fixed: those of all values, by their own names: columns of the table, too.
    label, form: of the axis and its values. by_time: whether to draw top-1 against minutes, too.
    """

    models: tuple[str, ...] | None
    settings: Mapping[float, Mapping[str, Any]]
    label: str
    form: str = "~g"
    by_time: bool = True
    fixed: Mapping[str, Any] = field(default_factory=dict)


STUDIES = {
    "data_efficiency": Study(
        None,
        {share: {"budget.train_fraction": share, "budget.epochs": epochs} for share, epochs in EPOCHS_OF_SHARE.items()},
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
}


class Trial(NamedTuple):
    """A training of a study."""

    study: str
    model: str
    value: float

    @property
    def name(self) -> str:
        """Of its experiment."""
        return f"{NAME}-{self.study}-{self.model}-{self.value:g}".replace("_", "-").replace(".", "_")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="*", help=f"some of {', '.join(STUDIES)}; all if none is named")
    parser.add_argument("--copy", action="append", default=[], help="a git-ignored path that trainings need (weights)")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.studies if name not in STUDIES]
    if unknown:
        raise UserError(f"there is no study {unknown[0]!r}: choose from {', '.join(STUDIES)}")
    commit, models = experiments.output("git", "rev-parse", "HEAD").strip(), list(params.read().models)
    trials = [
        Trial(name, model, value)
        for name in arguments.studies or STUDIES
        for model in STUDIES[name].models or models
        if model in models
        for value in STUDIES[name].settings
    ]
    known = _known(commit)
    missing = [trial for trial in trials if trial.name not in known]
    for trial in missing:
        settings = {**STUDIES[trial.study].fixed, **STUDIES[trial.study].settings[trial.value]}
        options = [f"--set-param={key.format(model=trial.model)}={value}" for key, value in settings.items()]
        options += [f"--copy-paths={path}" for path in arguments.copy]
        experiments.output(*DVC, "exp", "run", "--queue", "--name", trial.name, *options, f"evaluate@{trial.model}")
        print(f"{NAME}: queued {trial.name}", flush=True)
    if missing:
        experiments.run_queue(1, " ".join(["python -m stages.tools.study", *arguments.studies]))
        known = _known(commit)
    rows = pd.DataFrame([{"study": trial.study} | _row(trial, known.get(trial.name)) for trial in trials])
    for name, table in rows.groupby("study", sort=False):
        write(str(name), table.drop(columns="study").dropna(axis="columns", how="all"))


def write(name: str, table: pd.DataFrame) -> None:
    """Table and figure of a study in reports/studies; columns: see _row."""
    study, file = STUDIES[name], paths.STUDIES / f"{name}.csv"
    write_text(file, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    figure = charts.study(table, study.label, study.form, by_time=study.by_time)
    figure.save(file.with_suffix(".png"), scale_factor=2)
    print(f"{NAME}: {file} and .png")


def _known(commit: str) -> dict[str, dict[str, Any]]:
    """By name the experiments that ended well, run or wait."""
    return {one["name"]: one for one in experiments.read(NAME, commit) if one["state"] != "failed"}


def _row(trial: Trial, found: dict[str, Any] | None) -> dict[str, Any]:
    """What a training had and gave; UserError where it did not end well."""
    run = experiments.training(found["rev"], trial.model) if found and found["metrics"] else {}
    if not found or not run:
        logs = f"`dvc queue logs {trial.name}`"
        raise UserError(f"{trial.name} failed or has not ended, or DVC's cache lost its results: {logs}")
    resolved, metrics = run["resolved"], found["metrics"][trial.model]
    return {
        "model": trial.model,
        "value": trial.value,
        "epochs": run["epochs"],
        **{f"{split}_top1": metrics[split]["top1"] for split in ("val", "test")},
        "minutes": run["seconds"] / 60,
        "precision": resolved["precision"],
        "cpu": run["hardware"]["cpu"],
        "threads": resolved["threads"],
        "weights": resolved.get("weights_sha256", "random")[:16],
        "data": run["data_sha256"][:16],
        "seed": run["params"]["seed"],
        **{key.rpartition(".")[2]: fixed for key, fixed in STUDIES[trial.study].fixed.items()},
    }


if __name__ == "__main__":
    with one_line_errors(NAME):
        main()
