"""What `make study` measured, and whether it speaks of the models as they were trained for the report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stages.common.errors import UserError
from stages.common.files import json_sha256, read_json

BUDGET = ("seed", "epochs", "images", "minutes", "train_fraction")  # the tables say what each training had of these
MEASURED = ("val_top1", "test_top1", "minutes", "seconds")


def read(folder: Path, runs: Mapping[str, Mapping[str, Any]]) -> dict[str, pd.DataFrame]:
    """By name the studies of a folder, NAME.csv with NAME.json each: the rows that count; left out where none do.

    runs: run.json by model. A table without its JSON speaks of nobody knows what: none of its rows count.
    """
    tables = {}
    for file in sorted(folder.glob("*.csv")):
        try:
            table = pd.read_csv(file)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {file} ({error}): run `make study`") from error
        record = file.with_suffix(".json")
        study = read_json(record, "run `make study`") if record.exists() else {}
        rows = table[table["model"].isin([model for model, run in runs.items() if is_current(study, model, run)])]
        if len(rows):
            tables[file.stem] = rows.reset_index(drop=True)
    return tables


def means(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each model and value, with the means over seeds of what was measured."""
    keys = ["model", "value"]
    columns = {column: "mean" if column in MEASURED else "first" for column in table.columns.difference(keys, False)}
    return table.groupby(keys, sort=False).agg(columns).reset_index()


def is_current(study: Mapping[str, Any], model: str, run: Mapping[str, Any]) -> bool:
    """Whether a study speaks of a model as it was trained: on the same data, with the same settings.

    study: of reports/studies/NAME.json. run: of run.json.
    """
    settings = study.get("settings", {}).get(model)
    return bool(settings) and study["data_sha256"] == run["data_sha256"] and settings == of_run(run, study["varied"])


def of_run(run: Mapping[str, Any], varied: Sequence[str]) -> str:
    """Hash of what decides, beside data and budget, how good a model becomes: its section and its initial weights.

    varied: settings that do not count, because a study sets them itself. Nor does where it was trained (compute.*),
    which changes results by rounding alone, or where the file of the weights lies: their own hash counts.
    """
    ignored = (*BUDGET, "weights", *varied)
    section = {key: value for key, value in run["params"].items() if "." not in key and key not in ignored}
    return json_sha256(section | {"weights_sha256": run["resolved"].get("weights_sha256")})
