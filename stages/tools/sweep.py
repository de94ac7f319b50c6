"""What `make sweep` does once its experiments are queued: train them, then write their table and figure."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stages.common.errors import UserError, one_line_errors
from stages.common.files import write_text
from stages.models import params
from stages.tools import charts, experiments
from stages.tools.markdown import render

TABLE, FIGURE = Path("sweep/sweep.md"), Path("sweep/sweep.png")  # git-ignored


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a key of models in params.yaml")
    parser.add_argument("name", help="of the sweep: its experiments are NAME-1, NAME-2 ...")
    parser.add_argument("--rev", default="HEAD", help="the commit that was checked out when it was queued")
    parser.add_argument("--jobs", type=int, default=1, help="how many to train at a time (default: 1)")
    arguments = parser.parse_args()
    model, name = arguments.model, arguments.name
    params.read().model(model)
    # By number: hours later, when the experiments are done, HEAD may be another commit.
    commit = experiments.output("git", "rev-parse", "--verify", arguments.rev).strip()
    again = f"python -m stages.tools.sweep {model} {name} --rev {commit[:10]}"
    experiments.run_queue(arguments.jobs, again)
    found = experiments.read(name, commit)
    if not found:
        raise UserError(f"no experiment {name} under commit {commit[:10]}: `dvc exp list --all` names those there are")
    report(found, name, model)
    for state, remedy in (("failed", "`dvc queue logs NAME` says why"), ("running", again), ("queued", again)):
        names = [experiment["name"] for experiment in found if experiment["state"] == state]
        if names:
            raise UserError(f"{len(names)} of {len(found)} experiments {state}: {', '.join(names)}; {remedy}")


def report(found: Sequence[dict[str, Any]], name: str, model: str) -> None:
    """Write table and figure of the experiments that ended well, if there are some."""
    for former in (TABLE, FIGURE):
        former.unlink(missing_ok=True)
    if all(one["state"] != "success" for one in found):
        return
    tried, settings = rank(found, model)
    TABLE.parent.mkdir(exist_ok=True)
    charts.sweep(settings, tried, f"{model}: top-1 on validation").save(FIGURE, scale_factor=2)
    write_text(TABLE, render("sweep", name=name, model=model, tried=tried, settings=settings.to_dict("records")))
    print(f"{name}: best top-1 on validation {settings['val_top1'].max():.2%}; all in {TABLE}, {FIGURE}")


def rank(found: Sequence[dict[str, Any]], model: str) -> tuple[list[str], pd.DataFrame]:
    """The parameters that were tried, and for each setting that ended well a row, best top-1 on validation first.

    Tried is what differs; seeds repeat a setting, unless nothing else differs. Columns: the parameters, val_top1
    (mean), low, high (shares), n, minutes of training (mean, NaN where unknown), experiments (names).
    """
    values = pd.DataFrame({one["name"]: one["params"] for one in found}).T
    values.columns = values.columns.str.removeprefix(f"models.{model}.")
    differing = [str(column) for column in values if values[column].nunique(dropna=False) > 1]
    tried = [column for column in differing if column != "seed"] or differing
    if not tried:
        raise UserError(f"all experiments of {model} have the same parameters: give SWEEP two values of one at least")
    ended = [one for one in found if one["state"] == "success"]
    runs = values.loc[[one["name"] for one in ended], tried].assign(
        val_top1=[one["metrics"][model]["val"]["top1"] for one in ended],
        minutes=[experiments.training(one["rev"], model).get("seconds", float("nan")) / 60 for one in ended],
        experiment=[one["name"] for one in ended],
    )
    columns: dict[Any, Any] = {"val_top1": ["mean", "min", "max", "size"], "minutes": "mean", "experiment": list}
    settings = runs.groupby(tried, sort=False, dropna=False).agg(columns)
    settings.columns = ["val_top1", "low", "high", "n", "minutes", "experiments"]
    return tried, settings.sort_values("val_top1", ascending=False, kind="stable").reset_index()


if __name__ == "__main__":
    with one_line_errors("sweep"):
        main()
