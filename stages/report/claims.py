"""The claims of the write-up that this project replaces, each against what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from stages.report.candidate import Candidate

# The models that the claims are about; others in params.yaml are no part of them.
SCRATCH, VIT, CNN = "vit_scratch", "vit_transfer", "mobilenet_transfer"
TIMES = (3, 5)  # how much better transfer learning was claimed to be
CLEARLY = 0.05  # share: a smaller difference in top-1 is not what the claims speak of
POINTS = (0.05, 0.1, 0.25, 0.5)  # of the epoch, at which the two pretrained models are compared
NEAR = 0.02  # of the epoch: training reports so near to a point are averaged

Verdict = Literal["Holds", "Does not hold", "Not decided", "Not tested"]
# Why not: no such model in params.yaml; not with pretrained weights, not all layers trained; nothing right at all; not
# one epoch; no study of this data.
Reason = Literal["missing", "not finetuned", "zero", "epochs", "no study"]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """A verdict with the figures it follows from.

    reason: of "Not tested", models: whom it concerns. values: figures by name; rows: of the study, in order.
    """

    verdict: Verdict
    reason: Reason | None = None
    models: Sequence[str] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Row] = ()


def judge(
    candidates: Sequence[Candidate],
    pairs: Sequence[Row],
    data_sha256: str,
    studies: Mapping[str, pd.DataFrame],
    steps: pd.DataFrame,
) -> dict[str, Claim]:
    """The four claims by their names in templates/claims.md.j2.

    pairs: of model_comparison.compare. studies: by name, the tables of `make study`; rows of other data do not count.
    steps: what each model reported while it trained: columns model, step and train_top1.
    """
    models = {candidate.name: candidate for candidate in candidates}
    own = {name: rows[rows["data"] == data_sha256[:16]].sort_values("value") for name, rows in studies.items()}
    none = pd.DataFrame()
    return {
        "transfer": _transfer(models, own.get("data_efficiency", none)),
        "one_epoch": _one_epoch(models, pairs, steps),
        "patches": _patches(own.get("patch_size", none)),
        "epochs": _epochs(models, own.get("epochs", none)),
    }


def _untested(models: Mapping[str, Candidate], *names: str) -> Claim | None:
    """Where a model is missing, or was not what the claim is about: pretrained, and finetuned in all its layers."""
    if missing := [name for name in names if name not in models]:
        return Claim("Not tested", "missing", missing)
    finetuned = [models[name] for name in names if name != SCRATCH]
    if other := [c.name for c in finetuned if not c.is_pretrained or c.run["params"].get("finetune") == "head"]:
        return Claim("Not tested", "not finetuned", other)
    return None


def _transfer(models: Mapping[str, Candidate], study: pd.DataFrame) -> Claim:
    if untested := _untested(models, SCRATCH, VIT, CNN):
        return untested
    top1 = {name: models[name].test["top1"] for name in (SCRATCH, VIT, CNN)}
    if top1[SCRATCH] == 0:
        return Claim("Not tested", "zero", [SCRATCH])
    ratios = {name: top1[name] / top1[SCRATCH] for name in (VIT, CNN)}
    holds = all(TIMES[0] <= ratio <= TIMES[1] for ratio in ratios.values())
    rows = []
    if len(study):
        epochs = study.groupby("value")["epochs"].max().to_dict()
        pivot = study.pivot(index="value", columns="model", values="val_top1")
        for share, found in pivot.to_dict("index").items():
            shares = {name: found[name] for name in (SCRATCH, VIT, CNN)}
            ratio = shares[VIT] / shares[SCRATCH] if shares[SCRATCH] else None
            rows.append({"share": share, "epochs": epochs[share], "top1": shares, "ratio": ratio})
    values = {"top1": top1, "ratios": ratios, "better": all(ratio > 1 for ratio in ratios.values())}
    return Claim("Holds" if holds else "Does not hold", values=values, rows=rows)


def _one_epoch(models: Mapping[str, Candidate], pairs: Sequence[Row], steps: pd.DataFrame) -> Claim:
    if untested := _untested(models, VIT, CNN):
        return untested
    if longer := [name for name in (VIT, CNN) if models[name].run["epochs"] != 1]:
        return Claim("Not tested", "epochs", longer)
    pair = next(pair for pair in pairs if {pair["first"], pair["second"]} == {VIT, CNN})
    verdict: Verdict = "Holds" if pair["first"] == CNN else "Does not hold"
    course = {name: _course(steps[steps["model"] == name]) for name in (CNN, VIT)}
    return Claim(
        verdict if pair["is_significant"] else "Not decided",
        values={"vit": models[VIT], "cnn": models[CNN], "pair": pair, "course": course if all(course.values()) else {}},
    )


def _course(steps: pd.DataFrame) -> list[float]:
    """Top-1 on the training batches near each of POINTS; empty where there were too few reports."""
    share = steps["step"] / steps["step"].max()
    course = [steps["train_top1"][(share - point).abs() <= NEAR].mean() for point in POINTS]
    return [] if pd.isna(course).any() else course


def _patches(study: pd.DataFrame) -> Claim:
    if len(study) < 2:
        return Claim("Not tested", "no study")
    small, large = study.iloc[0].to_dict(), study.iloc[-1].to_dict()
    gain, cost = small["val_top1"] - large["val_top1"], small["minutes"] / large["minutes"]
    verdict: Verdict = "Holds" if gain > 0 and cost > 1 else "Does not hold"
    return Claim(
        verdict if abs(gain) > CLEARLY else "Not decided",
        values={"small": small, "large": large, "gain": gain, "cost": cost},
    )


def _epochs(models: Mapping[str, Candidate], study: pd.DataFrame) -> Claim:
    if len(study) < 2:
        return Claim("Not tested", "no study")
    rows = [{str(key): value for key, value in row.items()} for row in study.to_dict("records")]
    first, last = rows[0], rows[-1]
    vit = models.get(VIT)
    enough = vit and vit.is_pretrained and vit.run["epochs"] == 1 and vit.val_top1 > last["val_top1"]
    return Claim(
        "Holds" if last["val_top1"] - first["val_top1"] > CLEARLY else "Does not hold",
        values={"patch_size": first.get("patch_size"), "pretrained": vit if enough else None},
        rows=rows,
    )
