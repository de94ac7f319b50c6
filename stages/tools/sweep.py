"""What `make sweep` does once its experiments are queued: train them, then write their table and figure."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stages.common.errors import UserError, one_line_errors
from stages.common.files import write_json, write_text
from stages.models import params
from stages.report import charts, markdown
from stages.tools import experiments, provenance

TABLE, FIGURE, ORIGIN = (Path("sweep", f"sweep.{kind}") for kind in ("md", "png", "json"))  # git-ignored
TEMPLATE = Path(__file__).parent / "templates/sweep.md.j2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a key of models in params.yaml")
    parser.add_argument(
        "name", nargs="?", help="of the sweep: its experiments are NAME-1, NAME-2 ...; else check MODEL"
    )
    parser.add_argument("--rev", default="HEAD", help="the commit that was checked out when it was queued")
    parser.add_argument("--jobs", type=int, default=1, help="how many to train at a time (default: 1)")
    arguments = parser.parse_args()
    model, name = arguments.model, arguments.name
    params.read().model(model)
    if name is None:
        return
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
    for former in (TABLE, FIGURE, ORIGIN):
        former.unlink(missing_ok=True)
    if all(one["state"] != "success" for one in found):
        return
    trained = {one["name"]: experiments.trainings(one, model) for one in found if one["state"] == "success"}
    tried, settings = rank(found, trained, model)
    TABLE.parent.mkdir(exist_ok=True)
    charts.save(charts.sweep(settings, tried), FIGURE, f"{model}: top-1 on validation")
    values = {"name": name, "model": model, "tried": tried, "settings": settings.to_dict("records")}
    write_text(TABLE, markdown.render(TEMPLATE, **values))
    if runs := [run for own in trained.values() for run in own if "tags" in run]:
        write_json(ORIGIN, provenance.of_runs(runs))
    print(f"{name}: best top-1 on validation {settings['val_top1'].max():.2%}; all in {TABLE}, {FIGURE}")


def rank(
    found: Sequence[dict[str, Any]], trained: Mapping[str, Sequence[dict[str, Any]]], model: str
) -> tuple[list[str], pd.DataFrame]:
    """The parameters that were tried, and for each setting that ended well a row, best top-1 on validation first.

    found: all experiments; trained: by name what `experiments.trainings` knows of those that ended well. Tried is what
    differs; seeds repeat a setting, unless nothing else differs. Columns: the parameters, val_top1 (mean), low, high
    (shares), n, minutes of training (mean, NaN where unknown), experiments (names).
    """
    values = pd.DataFrame({one["name"]: one["params"] for one in found}).T
    values.columns = values.columns.str.removeprefix(f"models.{model}.")
    differing = [str(column) for column in values if values[column].nunique(dropna=False) > 1]
    tried = [column for column in differing if column != "seed"] or differing
    if not tried:
        raise UserError(f"all experiments of {model} have the same parameters: give SWEEP two values of one at least")
    rows = [(name, run) for name, own in trained.items() for run in own]
    runs = values.loc[[name for name, _ in rows], tried].assign(
        val_top1=[run["val_top1"] for _, run in rows],
        minutes=[run.get("seconds", float("nan")) / 60 for _, run in rows],
        experiment=[name for name, _ in rows],
    )
    columns: dict[Any, Any] = {"val_top1": ["mean", "min", "max", "size"], "minutes": "mean"}
    columns["experiment"] = lambda names: [*dict.fromkeys(names)]
    settings = runs.groupby(tried, sort=False, dropna=False).agg(columns)
    settings.columns = ["val_top1", "low", "high", "n", "minutes", "experiments"]
    return tried, settings.sort_values("val_top1", ascending=False, kind="stable").reset_index()


if __name__ == "__main__":
    with one_line_errors("sweep"):
        main()
