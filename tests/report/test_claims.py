"""The claims: each verdict follows from the figures; every branch of the template can be filled with them."""

import pandas as pd
import pytest

from stages.report import render
from stages.report.claims import CNN, SCRATCH, VIT, judge

from .conftest import DATASET, candidate, compared

NO_STEPS = pd.DataFrame({"model": [], "step": [], "train_top1": []})


def claimed(scratch=0.4, vit=0.8, cnn=0.7):
    """The three models that the claims are about, by their top-1."""
    models = ((SCRATCH, scratch, "random"), (VIT, vit, "file"), (CNN, cnn, "file"))
    return [candidate(name, val=top1, test=top1, weights=weights) for name, top1, weights in models]


def judged(candidates, steps=NO_STEPS, **studies):
    return judge(candidates, compared(*candidates)["pairs"], "d" * 64, studies, steps)


def study(values, top1s, minutes=(1.0, 3.0, 9.0), model=SCRATCH, data="d" * 16):
    """A table of `make study`."""
    rows = zip(values, top1s, minutes, strict=False)
    return pd.DataFrame(rows, columns=["value", "val_top1", "minutes"]).assign(model=model, epochs=1, data=data)


@pytest.mark.parametrize(
    ("scratch", "verdict", "better"),
    [(0.2, "Holds", True), (0.4, "Does not hold", True), (0.75, "Does not hold", False)],
)
def test_three_to_five_times_is_taken_by_its_word(scratch, verdict, better):
    claim = judged(claimed(scratch=scratch))["transfer"]
    assert (claim.verdict, claim.values["better"]) == (verdict, better)
    assert claim.values["ratios"] == {VIT: pytest.approx(0.8 / scratch), CNN: pytest.approx(0.7 / scratch)}


def changed(model, **changes):
    """The three, with changes to the run of one of them; sections are updated."""
    candidates = claimed()
    run = candidates[model].run
    for key, value in changes.items():
        run[key] = run[key] | value if isinstance(value, dict) else value
    return candidates


OF_OTHER_DATA = study([4, 8], [0.3, 0.2], data="another data set")


@pytest.mark.parametrize(
    ("candidates", "claim", "reason", "models"),
    [
        (claimed(scratch=0.0), "transfer", "zero", [SCRATCH]),
        ([candidate(SCRATCH), candidate("mine", test=0.3)], "transfer", "missing", [VIT, CNN]),
        ([candidate(SCRATCH), candidate("mine", test=0.3)], "one_epoch", "missing", [VIT, CNN]),
        (changed(1, epochs=3), "one_epoch", "epochs", [VIT]),
        (changed(2, resolved={"weights": "random"}), "transfer", "not finetuned", [CNN]),
        (changed(2, params={"finetune": "head"}), "one_epoch", "not finetuned", [CNN]),
        (claimed(), "patches", "no study", ()),
        (claimed(), "epochs", "no study", ()),
    ],
)
def test_what_was_not_measured_is_not_tested(candidates, claim, reason, models):
    found = judged(candidates, patch_size=OF_OTHER_DATA, epochs=OF_OTHER_DATA)[claim]
    assert (found.verdict, found.reason, found.models) == ("Not tested", reason, models)


@pytest.mark.parametrize(("cnn", "verdict"), [(0.7, "Does not hold"), (0.9, "Holds"), (0.801, "Not decided")])
def test_the_network_that_adapts_faster_is_significantly_better(cnn, verdict):
    claim = judged(claimed(cnn=cnn))["one_epoch"]
    assert (claim.verdict, claim.values["course"]) == (verdict, {})


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
    assert claim.values["gain"] == pytest.approx(top1s[1] - top1s[0])
    assert claim.values["cost"] == minutes[1] / minutes[0]


@pytest.mark.parametrize(("last", "verdict"), [(0.6, "Holds"), (0.32, "Does not hold")])
def test_many_epochs_are_needed_where_they_gain_much(last, verdict):
    claim = judged(claimed(), epochs=study([10, 1, 3], [last, 0.3, 0.31]))["epochs"]
    assert claim.verdict == verdict
    assert [row["value"] for row in claim.rows] == [1, 3, 10]
    assert claim.values["pretrained"].name == VIT
    assert judged(claimed(vit=0.31), epochs=study([1, 10], [0.3, last]))["epochs"].values["pretrained"] is None


def sections(text):
    return [part.split("\n\n", 1)[1].strip() for part in text.split("\n## ")[1:]]


def test_every_verdict_is_written_with_its_figures():
    course = pd.DataFrame({"step": range(20, 1420, 20)})
    course["train_top1"] = course["step"] / 3500
    top1s = {SCRATCH: [0.2, 0.05], VIT: [0.6, 0.2], CNN: [0.4, 0.15]}
    shares = pd.concat([study([1.0, 0.01], values, model=model) for model, values in top1s.items()])
    found = judged(
        claimed(scratch=0.2),
        pd.concat([course.assign(model=name) for name in (VIT, CNN)]),
        data_efficiency=shares,
        patch_size=study([8, 4], [0.2, 0.3]),
        epochs=study([1, 3, 10], [0.3, 0.5, 0.6]).assign(patch_size=8),
    )
    transfer, one_epoch, patches, epochs = sections(render.claims(found, DATASET))
    assert transfer.startswith("**Holds**. On test the pretrained models reach 4.0 times (vit_transfer, 80.0%) and 3.5")
    assert "3.0 times the scratch ViT's top-1 with 100% of the training images, and 4.0 times with 1%:" in transfer
    assert "| 1% | 1 | 5.0% | 20.0% | 15.0% | 4.0 |" in transfer
    assert "| 100% | 1 | 20.0% | 60.0% | 40.0% | 3.0 |" in transfer
    assert "10.0 points (" in one_epoch
    assert "after 5%, 10%, 25%, 50% of the epoch: 2%, 4%, 10%, 20% (mobilenet_transfer); 2%" in one_epoch
    assert "with patches of 4 px in 3.0 minutes" in patches
    assert patches.split("\n\n")[0].endswith("+10.0 points for 3.0 times the time.")
    assert "30.0% after 1, 50.0% after 3, 60.0% after 10 epochs on validation" in epochs
    assert "with patches of 8 px. A pretrained one needs no more than one: vit_transfer has 80.0%" in epochs

    for other in (claimed(scratch=0.0, cnn=0.801), claimed(scratch=0.75), [candidate(SCRATCH)]):
        assert all(section.startswith("**") for section in sections(render.claims(judged(other), DATASET)))
    longer = changed(1, epochs=2)
    longer[2].run["epochs"] = 2
    assert sections(render.claims(judged(longer), DATASET))[1] == (
        "**Not tested**: vit_transfer and mobilenet_transfer were not trained for one epoch."
    )
