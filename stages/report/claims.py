"""The claims of the write-up that this project replaces, each against what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from stages.evaluation.studies import means
from stages.report import adaptation
from stages.report.candidate import Candidate

# The models that the claims are about; others in params.yaml are no part of them.
SCRATCH, VIT, CNN = "vit_scratch", "vit_transfer", "mobilenet_transfer"
TIMES = (3, 5)  # how much better transfer learning was claimed to be
CLEARLY = 0.05  # share: a smaller difference in top-1 is not what the claims speak of

Verdict = Literal[adaptation.Verdict, "Not tested"]
# Why not: no such model in params.yaml; random initial weights; a head alone, which has no course of training; nothing
# right at all; not one epoch; no course was recorded; no study of this data and these settings.
Reason = Literal["missing", "random", "head", "zero", "epochs", "no course", "no study"]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """A verdict with the figures it follows from, all of it JSON.

    reason: of "Not tested", models: whom it concerns. found: figures by name; rows: of the study, in order.
    """

    verdict: Verdict
    reason: Reason | None = None
    models: Sequence[str] = ()
    found: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Row] = ()


def judge(
    candidates: Sequence[Candidate],
    pairs: Sequence[Row],
    dataset: Mapping[str, Any],
    studies: Mapping[str, pd.DataFrame],
    learning: pd.DataFrame,
) -> dict[str, Claim]:
    """The four claims by their names in templates/claims.md.j2.

    pairs: of model_comparison.compare. dataset: dataset.json. studies: by name, the tables of `make study` that
    count. learning: validation within each training, see adaptation.compare.
    """
    models = {candidate.name: candidate for candidate in candidates}
    own, none = {name: means(rows).sort_values("value") for name, rows in studies.items()}, pd.DataFrame()
    return {
        "transfer": _transfer(models, own.get("data_efficiency", none)),
        "one_epoch": _one_epoch(models, pairs, learning, dataset),
        "patches": _patches(own.get("patch_size", none)),
        "epochs": _epochs(models, own.get("epochs", none)),
    }


def _untested(models: Mapping[str, Candidate], *names: str) -> Claim | None:
    """Where a model is missing, or began with random weights though the claim is about pretrained ones."""
    if missing := [name for name in names if name not in models]:
        return Claim("Not tested", "missing", missing)
    if random := [name for name in names if name != SCRATCH and not models[name].is_pretrained]:
        return Claim("Not tested", "random", random)
    return None


def _transfer(models: Mapping[str, Candidate], study: pd.DataFrame) -> Claim:
    if untested := _untested(models, SCRATCH, VIT, CNN):
        return untested
    top1 = {name: models[name].mean_top1("test") for name in (SCRATCH, VIT, CNN)}
    if top1[SCRATCH] == 0:
        return Claim("Not tested", "zero", [SCRATCH])
    ratios = {name: top1[name] / top1[SCRATCH] for name in (VIT, CNN)}
    holds = all(TIMES[0] <= ratio <= TIMES[1] for ratio in ratios.values())
    rows = []
    if len(study):
        epochs = study.groupby("value")["epochs"].max().to_dict()
        pivot = study.pivot_table(index="value", columns="model", values="val_top1")  # the mean of several seeds
        for share, found in pivot.to_dict("index").items():
            shares = {name: found[name] for name in (SCRATCH, VIT, CNN)}
            ratio = shares[VIT] / shares[SCRATCH] if shares[SCRATCH] else None
            rows.append({"share": share, "epochs": epochs[share], "top1": shares, "ratio": ratio})
    values = {
        "top1": top1,
        "ratios": ratios,
        "better": all(ratio > 1 for ratio in ratios.values()),
        "seeds": {name: models[name].seeds for name in top1},
        "head_only": [name for name in ratios if models[name].is_head_only],
    }
    return Claim("Holds" if holds else "Does not hold", found=values, rows=rows)


def _one_epoch(
    models: Mapping[str, Candidate], pairs: Sequence[Row], learning: pd.DataFrame, dataset: Mapping[str, Any]
) -> Claim:
    if untested := _untested(models, VIT, CNN):
        return untested
    if heads := [name for name in (VIT, CNN) if models[name].is_head_only]:
        return Claim("Not tested", "head", heads)
    if longer := [name for name in (VIT, CNN) if models[name].epochs != 1]:
        return Claim("Not tested", "epochs", longer)
    course = adaptation.compare(learning, CNN, VIT, 1 / len(dataset["class_names"]))
    if not course or not course["levels"]:
        return Claim("Not tested", "no course", [VIT, CNN])
    [pair] = [pair for pair in pairs if {pair["first"], pair["second"]} == {VIT, CNN}]
    ends = {name: {"top1": models[name].mean_top1("test"), "minutes": models[name].mean_minutes} for name in (CNN, VIT)}
    return Claim(course["verdict"], found={"ends": ends, "pair": pair, **course})


def _patches(study: pd.DataFrame) -> Claim:
    if len(study) < 2:
        return Claim("Not tested", "no study")
    small, large = study.iloc[0].to_dict(), study.iloc[-1].to_dict()
    gain, cost = small["val_top1"] - large["val_top1"], small["minutes"] / large["minutes"]
    verdict: Verdict = "Holds" if gain > 0 and cost > 1 else "Does not hold"
    return Claim(
        verdict if abs(gain) > CLEARLY else "Not decided",
        found={"small": small, "large": large, "gain": gain, "cost": cost},
    )


def _epochs(models: Mapping[str, Candidate], study: pd.DataFrame) -> Claim:
    if len(study) < 2:
        return Claim("Not tested", "no study")
    rows = [{str(key): value for key, value in row.items()} for row in study.to_dict("records")]
    first, last = rows[0], rows[-1]
    vit = models.get(VIT)
    enough = vit and vit.is_pretrained and vit.epochs == 1 and vit.val_top1 > last["val_top1"]
    pretrained = {"model": VIT, "top1": vit.val_top1} if vit and enough else None
    return Claim(
        "Holds" if last["val_top1"] - first["val_top1"] > CLEARLY else "Does not hold",
        found={"patch_size": first.get("patch_size"), "pretrained": pretrained},
        rows=rows,
    )
