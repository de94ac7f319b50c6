"""The claims of the write-up that this project replaces, each against what was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from stages.report.candidate import Candidate, table

# The models that the claims are about; others in params.yaml are no part of them.
SCRATCH, VIT, CNN = "vit_scratch", "vit_transfer", "mobilenet_transfer"
MUCH = 0.05  # share: a smaller gain of top-1 is not what the claims speak of
POINTS = {"a twentieth": 0.05, "a tenth": 0.1, "a quarter": 0.25, "a half": 0.5}  # of the epoch
NEAR = 0.02  # of the epoch: reports so near to a point are averaged
UNTESTED = "**Not tested**"


def render(
    candidates: Sequence[Candidate],
    findings: Mapping[str, Any],
    dataset: Mapping[str, Any],
    studies: Mapping[str, pd.DataFrame],
    steps: Mapping[str, pd.DataFrame],
) -> str:
    """reports/claims.md.

    findings: of metrics.comparison. studies: by name, the tables of `make study`; rows of other data do not count.
    steps: for each model, what it reported while it trained: columns step and train_top1.
    """
    models = {candidate.name: candidate for candidate in candidates}
    own = {name: rows[rows["data"] == dataset["data_sha256"][:16]] for name, rows in studies.items()}
    parts = [
        f"# Claims, and what was measured on {dataset['source']}",
        "The write-up that came with the three notebooks made four claims. Each stands here with the measurement that "
        "bears on it. Everything is n = 1 unless said otherwise; data, weights, budget and hardware are those of "
        "[comparison.md](comparison.md), those of the studies stand in their tables in [studies/](studies/).",
        "## Transfer learning beats training from scratch three to five times",
        _transfer(models, own.get("data_efficiency")),
        "## A CNN adapts faster than a ViT in one epoch",
        _cnn(models, findings, steps),
        "## Smaller patches capture more, but cost more",
        _patches(own.get("patch_size")),
        "## A ViT needs many epochs",
        _epochs(models, own.get("epochs")),
    ]
    return "\n\n".join(parts) + "\n"


def _missing(models: Mapping[str, Candidate], *names: str) -> str | None:
    gone = [name for name in names if name not in models]
    return f"{UNTESTED}: params.yaml has no {' and no '.join(gone)}." if gone else None


def _transfer(models: Mapping[str, Candidate], shares: pd.DataFrame | None) -> str:
    if said := _missing(models, SCRATCH, VIT, CNN):
        return said
    if models[SCRATCH].test["top1"] == 0:
        return f"{UNTESTED}: the scratch ViT names no test picture right, which is no measure to be multiplied."
    ratios = {name: models[name].test["top1"] / models[SCRATCH].test["top1"] for name in (VIT, CNN)}
    holds = all(3 <= ratio <= 5 for ratio in ratios.values())
    better = all(ratio > 1 for ratio in ratios.values())
    verdict = "**Holds**" if holds else "**Does not hold** as a number" if better else "**Does not hold**"
    text = (
        f"{verdict}. On test the pretrained models reach "
        + " and ".join(f"{ratio:.1f} times ({name}, {models[name].test['top1']:.1%})" for name, ratio in ratios.items())
        + f" the top-1 of the scratch ViT ({models[SCRATCH].test['top1']:.1%})."
    )
    if shares is None or shares.empty:
        return text + " How it depends on the number of pictures was not tested on this data: `make study`."
    pivot = shares.pivot(index="value", columns="model", values="val_top1")
    epochs = shares.groupby("value")["epochs"].max()
    rows = [
        [
            f"{value:.0%}",
            f"{epochs[value]}",
            *(f"{pivot.loc[value, name]:.1%}" for name in (SCRATCH, VIT, CNN)),
            f"{pivot.loc[value, VIT] / pivot.loc[value, SCRATCH]:.1f}" if pivot.loc[value, SCRATCH] else "-",
        ]
        for value in pivot.index
    ]
    header = ["training pictures", "epochs", SCRATCH, VIT, CNN, f"{VIT} / {SCRATCH}"]
    fewest, most = rows[0], rows[-1]
    text += (
        f" On validation {VIT} reaches {most[-1]} times the scratch ViT's top-1 with {most[0]} of the training "
        f"pictures, and {fewest[-1]} times with {fewest[0]}; smaller shares were seen more often:"
    )
    return "\n\n".join(
        [
            text,
            table(header, rows, words=0),
            "![Top-1 against the share of training pictures](studies/data_efficiency.png)",
        ]
    )


def _cnn(models: Mapping[str, Candidate], findings: Mapping[str, Any], steps: Mapping[str, pd.DataFrame]) -> str:
    if said := _missing(models, VIT, CNN):
        return said
    vit, cnn = models[VIT], models[CNN]
    if not vit.run["epochs"] == cnn.run["epochs"] == 1:
        return f"{UNTESTED}: the models of this comparison were not trained for one epoch each."
    pair = next(pair for pair in findings["pairs"] if {pair["first"], pair["second"]} == {VIT, CNN})
    if not pair["is_distinguishable"]:
        verdict = "**Not decided**: the two cannot be told apart"
    elif pair["first"] == CNN:
        verdict = "**Holds**"
    else:
        verdict = "**Does not hold**"
    return (
        f"{verdict}. After one epoch with pretrained weights, all layers trained, the CNN ({CNN}) names "
        f"{cnn.test['top1']:.1%} of the test pictures right after {cnn.minutes} minutes, the ViT ({VIT}) "
        f"{vit.test['top1']:.1%} after {vit.minutes} minutes: {100 * pair['difference']:.1f} points between them "
        f"({100 * pair['low']:.1f} to {100 * pair['high']:.1f}).{_within_the_epoch(steps)} Their networks, image sizes "
        "and pretraining differ, so this speaks of these two, not of all CNNs and ViTs."
    )


def _within_the_epoch(steps: Mapping[str, pd.DataFrame]) -> str:
    """How the two got there, if both reported often enough."""
    courses = []
    for name in (CNN, VIT):
        share = steps[name]["step"] / steps[name]["step"].max()
        course = [steps[name]["train_top1"][(share - point).abs() <= NEAR].mean() for point in POINTS.values()]
        if pd.isna(course).any():
            return ""
        courses.append(f"{', '.join(f'{top1:.0%}' for top1 in course)} ({name})")
    return f" On the way, on the batches they trained on, after {', '.join(POINTS)} of the epoch: {'; '.join(courses)}."


def _patches(sizes: pd.DataFrame | None) -> str:
    if sizes is None or len(sizes) < 2:
        return f"{UNTESTED} on this data: `make study`."
    small, large = sizes.sort_values("value").iloc[0], sizes.sort_values("value").iloc[-1]
    gain, cost = small["val_top1"] - large["val_top1"], small["minutes"] / large["minutes"]
    if abs(gain) <= MUCH:
        verdict = "**Not decided**, for the difference is small"
    else:
        verdict = "**Holds**" if gain > 0 and cost > 1 else "**Does not hold**"
    return (
        f"{verdict}. One epoch of the scratch ViT gives {small['val_top1']:.1%} on validation with patches of "
        f"{small['value']:g} px in {small['minutes']:.1f} minutes, {large['val_top1']:.1%} with patches of "
        f"{large['value']:g} px in {large['minutes']:.1f} minutes: {100 * gain:+.1f} points for {cost:.1f} times the "
        "time."
        "\n\n![Top-1 against the size of patches](studies/patch_size.png)"
    )


def _epochs(models: Mapping[str, Candidate], epochs: pd.DataFrame | None) -> str:
    if epochs is None or len(epochs) < 2:
        return f"{UNTESTED} on this data: `make study`."
    ordered = epochs.sort_values("value")
    first, last = ordered.iloc[0], ordered.iloc[-1]
    gain = last["val_top1"] - first["val_top1"]
    verdict = "**Holds for one that starts from random weights**" if gain > MUCH else "**Does not hold**"
    steps = ", ".join(f"{row['val_top1']:.1%} after {row['value']:g}" for _, row in ordered.iterrows())
    patches = f", with patches of {first['patch_size']:g} px" if "patch_size" in first else ""
    text = f"{verdict}: the scratch ViT reaches {steps} epochs on validation, each a training of its own{patches}."
    if VIT in models and models[VIT].run["epochs"] == 1 and models[VIT].val_top1 > last["val_top1"]:
        text += f" A pretrained one needs no more than one: {VIT} has {models[VIT].val_top1:.1%} after its first."
    return text + "\n\n![Top-1 against epochs](studies/epochs.png)"
