"""Which rows of a study speak of the models in the report."""

import json

import pandas as pd
import pytest

from stages.common.errors import UserError
from stages.evaluation import studies

RUN = {
    "data_sha256": "d" * 64,
    "params": {"seed": 0, "epochs": 1, "width": 8, "patch_size": 4, "weights": "/here/w", "compute.threads": 2},
    "resolved": {"weights_sha256": "w" * 64},
}
STUDY = {"data_sha256": "d" * 64, "varied": ["patch_size"], "settings": {"net": studies.of_run(RUN, ["patch_size"])}}


def changed(section: str, **changes: object) -> dict:
    return RUN | {section: RUN[section] | changes}


@pytest.mark.parametrize(
    ("run", "is_current"),
    [
        (RUN, True),
        (changed("params", seed=1, epochs=9, minutes=4, train_fraction=0.1), True),  # the tables state these
        (changed("params", patch_size=8, weights="/there/w"), True),
        (changed("params", **{"compute.threads": 8}), True),
        (changed("params", width=9), False),
        (changed("params", depth=2), False),
        (changed("resolved", weights_sha256="x" * 64), False),
        (RUN | {"data_sha256": "e" * 64}, False),
    ],
)
def test_a_study_is_of_the_same_data_settings_and_initial_weights(run, is_current):
    assert studies.is_current(STUDY, "net", run) is is_current
    assert not studies.is_current(STUDY, "other", run)
    assert not studies.is_current({}, "net", run)


def test_rows_of_models_that_changed_do_not_count_and_seeds_are_their_mean(tmp_path):
    columns = ["model", "value", "seed", "val_top1", "epochs", "cpu", "minutes"]
    rows = [
        ("net", 8, 0, 0.1, 1, "Some CPU", 2.0),
        ("net", 8, 1, 0.3, 1, "Some CPU", 4.0),
        ("net", 4, 0, 0.5, 1, "Some CPU", 5.0),
        ("other", 4, 0, 0.9, 1, "Some CPU", 1.0),
    ]
    table = pd.DataFrame(rows, columns=columns)
    for name in ("patch_size", "of_unknown_origin"):
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    (tmp_path / "patch_size.json").write_text(json.dumps(STUDY))
    found = studies.read(tmp_path, {"net": RUN, "other": RUN})
    assert list(found) == ["patch_size"]
    assert found["patch_size"].values.tolist() == [list(row) for row in rows[:3]]
    assert studies.means(found["patch_size"]).to_dict("list") == {
        "model": ["net", "net"],
        "value": [8, 4],
        "seed": [0, 0],
        "val_top1": pytest.approx([0.2, 0.5]),
        "epochs": [1, 1],
        "cpu": ["Some CPU"] * 2,
        "minutes": [3.0, 5.0],
    }
    (tmp_path / "patch_size.csv").write_text("")
    with pytest.raises(UserError, match="run `make study`"):
        studies.read(tmp_path, {})
