"""What `make study` does: small experiments behind reports/claims.md, each a DVC experiment, as tables and pictures."""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import pandas as pd

from stages.common import paths
from stages.common.errors import UserError, one_line_errors
from stages.common.files import write_text
from stages.models import params
from stages.report.plots import style
from stages.report.plots.study import study as draw
from stages.tools import experiments
from stages.tools.experiments import Experiment
from stages.tools.sweep import command_output, dvc, wait

matplotlib.use("Agg")

NAME = "study"
EPOCHS_OF_SHARE = {0.01: 10, 0.05: 5, 0.2: 2, 1.0: 1}  # a hundredth of the pictures, seen once, would teach nothing


@dataclass(frozen=True)
class Study:
    """A question, put to some models.

    models: None for all of params.yaml. varied: the parameter that the table is about, with {model} for its name.
    settings: for each of its values what to set, dotted keys of params.yaml. fixed: what to set for all of them.
    label: of the axis. logarithmic: whether that is how it is drawn. by_time: whether to draw it against minutes, too.
    """

    models: tuple[str, ...] | None
    varied: str
    settings: Mapping[float, Mapping[str, Any]]
    label: str
    logarithmic: bool = False
    by_time: bool = True
    fixed: Mapping[str, Any] = field(default_factory=dict)


STUDIES = {
    "data_efficiency": Study(
        None,
        "budget.train_fraction",
        {share: {"budget.train_fraction": share, "budget.epochs": epochs} for share, epochs in EPOCHS_OF_SHARE.items()},
        f"share of the training pictures, for {', '.join(map(str, EPOCHS_OF_SHARE.values()))} epochs",
        logarithmic=True,
        by_time=False,  # with other numbers of epochs, a smaller share takes no less of it
    ),
    "patch_size": Study(
        ("vit_scratch",),
        "models.{model}.patch_size",
        {size: {"models.{model}.patch_size": size} for size in (8, 4)},
        "side of a patch in pixels",
    ),
    "epochs": Study(
        ("vit_scratch",),
        "models.{model}.epochs",
        {epochs: {"models.{model}.epochs": epochs} for epochs in (1, 3, 10)},
        "epochs",
        fixed={"models.{model}.patch_size": 8},  # a fourth of the tokens: fourteen epochs in a quarter of an hour
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "studies", nargs="*", metavar="STUDY", help=f"some of {', '.join(STUDIES)}; all if none is named"
    )
    parser.add_argument("--copy", action="append", default=[], help="a git-ignored path that trainings need (weights)")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.studies if name not in STUDIES]
    if unknown:
        raise UserError(f"there is no study {unknown[0]!r}: choose from {', '.join(STUDIES)}")
    chosen = {name: STUDIES[name] for name in arguments.studies or STUDIES}
    models = list(params.read().models)
    commit = command_output("git", "rev-parse", "HEAD").strip()
    found = _found(commit, models)
    wanted = {
        f"{NAME}-{name.replace('_', '-')}-{model.replace('_', '-')}-{value:g}".replace(".", "_"): (
            model,
            {**study.fixed, **settings},
        )
        for name, study in chosen.items()
        for model in study.models or models
        if model in models
        for value, settings in study.settings.items()
    }
    missing = {name: wanted[name] for name in wanted if name not in found}
    for name, (model, settings) in missing.items():
        changes = [option for key, value in settings.items() for option in ("-S", f"{key.format(model=model)}={value}")]
        copies = [option for path in arguments.copy for option in ("-C", path)]
        dvc("exp", "run", "--queue", "--name", name, *copies, *changes, f"evaluate@{model}")
        print(f"{NAME}: queued {name}", flush=True)
    if missing:
        dvc("queue", "start", "-j", "1")
        wait(NAME, f"python -m stages.tools.study {' '.join(arguments.studies)}".rstrip())
        found = _found(commit, models)
    failed = [name for name in wanted if name not in found]
    if failed:
        raise UserError(
            f"failed: {', '.join(failed)}; `dvc queue logs NAME` says why, `dvc queue remove --failed` forgets"
        )
    for name, study in chosen.items():
        rows = []
        for model in study.models or models:
            prefix = f"{NAME}-{name}-{model}-".replace("_", "-")
            rows += [_row(found[one], model, study) for one in wanted if one.startswith(prefix)]
        write(name, study, pd.DataFrame(rows))


def write(name: str, study: Study, table: pd.DataFrame) -> None:
    """Table and picture of a study in reports/studies; columns: see _row."""
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    write_text(paths.STUDIES / f"{name}.csv", text)
    style.save(
        draw(table, study.label, logarithmic=study.logarithmic, by_time=study.by_time), paths.STUDIES / f"{name}.png"
    )
    print(f"{NAME}: {paths.STUDIES / name}.csv and .png")


def _found(commit: str, models: list[str]) -> dict[str, Experiment]:
    """The experiments under a commit that ended well, by name."""
    shown = json.loads(dvc("exp", "show", "--json", "--rev", commit))
    return {
        experiment.name: experiment
        for model in models
        for experiment in experiments.parse(shown, NAME, model)
        if experiment.state == "success"
    }


def _row(experiment: Experiment, model: str, study: Study) -> dict[str, Any]:
    """What a training had and gave."""
    from dvc import api

    run = json.loads(api.read((paths.RUNS / model / "run.json").as_posix(), rev=experiment.rev))
    metrics = json.loads(api.read((paths.METRICS / f"{model}.json").as_posix(), rev=experiment.rev))
    return {
        "model": model,
        "value": experiment.params[study.varied.format(model=model)],
        "epochs": run["epochs"],
        "val_top1": metrics["val"]["top1"],
        "test_top1": metrics["test"]["top1"],
        "minutes": run["seconds"] / 60,
        "precision": run["resolved"]["precision"],
        "cpu": run["hardware"]["cpu"],
        "threads": run["resolved"]["threads"],
        "weights": run["resolved"].get("weights_sha256", "random")[:16],
        "data": run["data_sha256"][:16],
        "seed": run["params"]["seed"],
        **{key.rpartition(".")[2]: value for key, value in study.fixed.items()},
    }


if __name__ == "__main__":
    try:
        with one_line_errors(NAME):
            main()
    except KeyboardInterrupt:
        print(
            f"\n{NAME}: the experiments go on in the background; the same command waits for them again", file=sys.stderr
        )
        sys.exit(130)
