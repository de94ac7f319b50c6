"""The claims: each verdict follows from the figures; every branch of the template can be filled with them."""

import json
from dataclasses import asdict

import pandas as pd
import pytest

from stages.report import render
from stages.report.claims import CNN, SCRATCH, VIT, judge

from .conftest import DATASET, candidate, compared

NO_COURSE = pd.DataFrame(columns=["model", "seed", "images", "seconds", "val_top1"])


def claimed(scratch=0.4, vit=0.8, cnn=0.7):
    """The three models that the claims are about, by their top-1."""
    models = ((SCRATCH, scratch, "random"), (VIT, vit, "file"), (CNN, cnn, "file"))
    return [candidate(name, val=top1, test=top1, weights=weights) for name, top1, weights in models]


def courses(seeds=(0,), **by_model):
    """Validation within the training: by model the top-1 after 100 images each, in ten seconds."""
    rows = [
        (model, seed, 100 * place, 10.0 * place, top1)
        for model, course in by_model.items()
        for seed in seeds
        for place, top1 in enumerate(course, start=1)
    ]
    return pd.DataFrame(rows, columns=NO_COURSE.columns)


def judged(candidates, learning=NO_COURSE, **studies):
    return judge(candidates, compared(*candidates)["pairs"], DATASET, studies, learning)


def written(candidates, learning=NO_COURSE, dataset=DATASET, **studies):
    """The sections of the report."""
    claims = {name: asdict(claim) for name, claim in judged(candidates, learning, **studies).items()}
    content = {"claims": json.loads(json.dumps(claims)), "studies": list(studies)}
    text = render.claims(content, dataset, [])
    return text, [part.split("\n\n", 1)[1].strip() for part in text.split("\n## ")[1:]]


def study(values, top1s, minutes=(1.0, 3.0, 9.0), model=SCRATCH):
    """A table of `make study`."""
    rows = zip(values, top1s, minutes, strict=False)
    table = pd.DataFrame(rows, columns=["value", "val_top1", "minutes"]).assign(epochs=1)
    table.insert(0, "model", model)
    return table


@pytest.mark.parametrize(
    ("scratch", "verdict", "better"),
    [(0.2, "Holds", True), (0.4, "Does not hold", True), (0.75, "Does not hold", False)],
)
def test_three_to_five_times_is_taken_by_its_word(scratch, verdict, better):
    claim = judged(claimed(scratch=scratch))["transfer"]
    assert (claim.verdict, claim.found["better"]) == (verdict, better)
    assert claim.found["ratios"] == {VIT: pytest.approx(0.8 / scratch), CNN: pytest.approx(0.7 / scratch)}


def changed(model, **changes):
    """The three, with changes to the run of one of them; sections are updated."""
    candidates = claimed()
    run = candidates[model].run
    for key, value in changes.items():
        run[key] = run[key] | value if isinstance(value, dict) else value
    return candidates


@pytest.mark.parametrize(
    ("candidates", "claim", "reason", "models"),
    [
        (claimed(scratch=0.0), "transfer", "zero", [SCRATCH]),
        ([candidate(SCRATCH), candidate("mine", test=0.3)], "transfer", "missing", [VIT, CNN]),
        ([candidate(SCRATCH), candidate("mine", test=0.3)], "one_epoch", "missing", [VIT, CNN]),
        (changed(1, epochs=3), "one_epoch", "epochs", [VIT]),
        (changed(2, resolved={"weights": "random"}), "transfer", "random", [CNN]),
        (changed(1, resolved={"weights": "random"}), "one_epoch", "random", [VIT]),
        (changed(2, params={"finetune": "head"}), "one_epoch", "head", [CNN]),
        (claimed(), "one_epoch", "no course", [VIT, CNN]),
        (claimed(), "patches", "no study", ()),
        (claimed(), "epochs", "no study", ()),
    ],
)
def test_what_was_not_measured_is_not_tested(candidates, claim, reason, models):
    found = judged(candidates)[claim]
    assert (found.verdict, found.reason, found.models) == ("Not tested", reason, models)


FAST, SLOW = [0.3, 0.6, 0.7], [0.1, 0.4, 0.8]


@pytest.mark.parametrize(
    ("cnn", "vit", "verdict"),
    [(SLOW, [0.3, 0.39, 0.5], "Mixed"), (FAST, [0.1, 0.2, 0.8], "Holds"), ([0.1, 0.2, 0.3], FAST, "Does not hold")],
)
def test_the_network_that_adapts_faster_is_first_within_the_epoch(cnn, vit, verdict):
    claim = judged(claimed(), courses(**{CNN: cnn, VIT: vit}))["one_epoch"]
    assert claim.verdict == verdict
    assert claim.found["ends"][CNN] == {"top1": 0.7, "minutes": 10.0}


def test_ratios_are_of_means_over_seeds():
    several = [candidate(name, 0.8, top1, weights="file", spread=0.05) for name, top1 in ((SCRATCH, 0.25), (VIT, 0.85))]
    claim = judged([*several, candidate(CNN, 0.8, 0.6, weights="file")])["transfer"]
    assert claim.found["top1"] == {SCRATCH: pytest.approx(0.2), VIT: pytest.approx(0.8), CNN: 0.6}
    assert claim.found["ratios"] == {VIT: pytest.approx(4.0), CNN: pytest.approx(3.0)}


@pytest.mark.parametrize(
    ("top1s", "minutes", "verdict"),
    [
        ([0.2, 0.3], [1, 3], "Holds"),
        ([0.3, 0.2], [1, 3], "Does not hold"),
        ([0.2, 0.3], [3, 3], "Does not hold"),
        ([0.3, 0.301], [1, 3], "Not decided"),
    ],
)
def test_smaller_patches_must_give_more_and_cost_more(top1s, minutes, verdict):
    claim = judged(claimed(), patch_size=study([8, 4], top1s, minutes))["patches"]
    assert claim.verdict == verdict
    assert claim.found["gain"] == pytest.approx(top1s[1] - top1s[0])
    assert claim.found["cost"] == minutes[1] / minutes[0]


@pytest.mark.parametrize(("last", "verdict"), [(0.6, "Holds"), (0.32, "Does not hold")])
def test_many_epochs_are_needed_where_they_gain_much(last, verdict):
    claim = judged(claimed(), epochs=study([10, 1, 3], [last, 0.3, 0.31]))["epochs"]
    assert claim.verdict == verdict
    assert [row["value"] for row in claim.rows] == [1, 3, 10]
    assert claim.found["pretrained"] == {"model": VIT, "top1": 0.8}
    assert judged(claimed(vit=0.31), epochs=study([1, 10], [0.3, last]))["epochs"].found["pretrained"] is None


def test_every_verdict_is_written_with_its_figures():
    top1s = {SCRATCH: [0.2, 0.05], VIT: [0.6, 0.2], CNN: [0.4, 0.15]}
    shares = pd.concat([study([1.0, 0.01], values, model=model) for model, values in top1s.items()])
    _, (transfer, one_epoch, patches, epochs) = written(
        claimed(scratch=0.2),
        courses(seeds=(0, 1), **{CNN: FAST, VIT: SLOW}),
        data_efficiency=shares,
        patch_size=study([8, 4], [0.2, 0.3]),
        epochs=study([1, 3, 10], [0.3, 0.5, 0.6]).assign(patch_size=8),
    )
    assert transfer.startswith("**Holds**. On test the pretrained models reach 4.0 times (vit_transfer, 80.0%) and 3.5")
    assert "3.0 times the scratch ViT's top-1 with 100% of the training images, and 4.0 times with 1%:" in transfer
    assert "| 1% | 1 | 5.0% | 20.0% | 15.0% | 4.0 |" in transfer
    assert "| 100% | 1 | 20.0% | 60.0% | 40.0% | 3.0 |" in transfer
    assert one_epoch.startswith(
        f"**Holds**. Of 4 accuracies, {CNN} is first at 4 in time and at 4 in images, {VIT} at 0 and 0. "
    )
    assert f"| 25.0% | 8.3 / 8.3 | 15 / 15 | {CNN} | 83 / 83 | 150 / 150 | {CNN} |" in one_epoch
    assert "vit_transfer passes mobilenet_transfer for good after 27 / 27 seconds, at 66.7% / 66.7%." in one_epoch
    assert "a difference of 10.0 points (" in one_epoch
    assert "with patches of 4 px in 3.0 minutes" in patches
    assert patches.split("\n\n")[0].endswith("+10.0 points for 3.0 times the time.")
    assert "30.0% after 1, 50.0% after 3, 60.0% after 10 epochs on validation" in epochs
    assert "with patches of 8 px. A pretrained one has more after its first: vit_transfer 80.0%." in epochs


def test_nothing_is_said_that_was_not_so():
    random = [candidate(name, test=0.5, weights="random") for name in (SCRATCH, VIT, CNN)]
    course = courses(**{CNN: FAST, VIT: SLOW})
    text, (transfer, one_epoch, _, _) = written(random, course, {**DATASET, "source": "demo"})
    assert "> **Generated images.**" in text
    assert transfer == one_epoch == "**Not tested**: vit_transfer and mobilenet_transfer started from random weights."
    assert "pretrained" not in text
    assert "all layers" not in text

    head = claimed(scratch=0.2)
    for one in head[1:]:
        one.run["params"]["finetune"] = "head"
        one.run["epochs"] = 5
    text, (transfer, one_epoch, _, _) = written(head, course)
    assert "4.0 times (vit_transfer, head only, 80.0%)" in transfer
    assert one_epoch.startswith("**Not tested**: of vit_transfer and mobilenet_transfer only the head was fitted")
    assert "all layers" not in text
    assert "Generated" not in text

    two, one = claimed()[:2], claimed()[:1]
    assert written(two)[1][0] == "**Not tested**: params.yaml has no mobilenet_transfer."
    assert written(one)[1][0] == "**Not tested**: params.yaml has no vit_transfer and no mobilenet_transfer."
    assert all(section.startswith("**Not tested**") for section in written(one)[1])
    longer = changed(1, epochs=2)
    longer[2].run["epochs"] = 0.7  # of a budget in minutes
    assert written(longer, course)[1][1] == (
        "**Not tested**: vit_transfer and mobilenet_transfer were not trained for one epoch."
    )
