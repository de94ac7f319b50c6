"""The claims: each verdict follows from the figures; every branch of the template can be filled with them."""

import pandas as pd
import pytest

from stages.report import render
from stages.report.claims import CNN, SCRATCH, VIT, judge

NO_STEPS = pd.DataFrame({"model": [], "step": [], "train_top1": []})


@pytest.fixture
def judged(compared):
    def make(candidates, steps=NO_STEPS, **studies):
        return judge(candidates, compared(*candidates)["pairs"], "d" * 64, studies, steps)

    return make


@pytest.mark.parametrize(
    ("scratch", "verdict", "better"),
    [(0.2, "Holds", True), (0.4, "Does not hold", True), (0.75, "Does not hold", False)],
)
def test_three_to_five_times_is_taken_by_its_word(judged, claimed, scratch, verdict, better):
    claim = judged(claimed(scratch=scratch)).transfer
    assert (claim.verdict, claim.values["better"]) == (verdict, better)
    assert claim.values["ratios"] == {VIT: pytest.approx(0.8 / scratch), CNN: pytest.approx(0.7 / scratch)}


def test_what_was_not_measured_is_not_tested(judged, claimed, candidate):
    zero = judged(claimed(scratch=0.0)).transfer
    assert (zero.verdict, zero.reason) == ("Not tested", "zero")
    missing = judged([candidate(SCRATCH), candidate("mine", test=0.3)])
    assert (missing.transfer.reason, missing.transfer.models) == ("missing", [VIT, CNN])
    assert missing.one_epoch.reason == "missing"
    longer = claimed()
    longer[1].run["epochs"] = 3
    assert (judged(longer).one_epoch.reason, judged(longer).one_epoch.models) == ("epochs", [VIT])
    assert judged(claimed()).patches.reason == judged(claimed()).epochs.reason == "no study"


@pytest.mark.parametrize("change", [{"resolved": {"weights": "random"}}, {"params": {"finetune": "head"}}])
def test_a_claim_on_pretrained_models_needs_models_that_are_finetuned(judged, claimed, change):
    models = claimed()
    for section, values in change.items():
        models[2].run[section].update(values)
    for claim in (judged(models).transfer, judged(models).one_epoch):
        assert (claim.verdict, claim.reason, claim.models) == ("Not tested", "not finetuned", [CNN])


@pytest.mark.parametrize(("cnn", "verdict"), [(0.7, "Does not hold"), (0.9, "Holds"), (0.801, "Not decided")])
def test_the_network_that_adapts_faster_is_significantly_better(judged, claimed, cnn, verdict):
    claim = judged(claimed(cnn=cnn)).one_epoch
    assert (claim.verdict, claim.values["course"]) == (verdict, {})


def test_the_course_of_the_epoch_is_read_from_the_training_reports(judged, claimed):
    course = pd.DataFrame({"step": range(20, 1420, 20)})
    course["train_top1"] = course["step"] / 1400
    steps = pd.concat([course.assign(model=name) for name in (SCRATCH, VIT, CNN)])
    found = judged(claimed(), steps).one_epoch.values["course"]
    assert found == {name: pytest.approx([0.05, 0.1, 0.25, 0.5], abs=0.01) for name in (CNN, VIT)}


def test_rows_of_other_data_do_not_count(judged, claimed, study):
    other = study([4, 8], [0.3, 0.2], data="another data set")
    found = judged(claimed(), patch_size=other, epochs=other, data_efficiency=other)
    assert (found.patches.reason, found.epochs.reason, found.transfer.rows) == ("no study", "no study", [])


@pytest.mark.parametrize(
    ("top1s", "minutes", "verdict"),
    [
        ([0.2, 0.3], [1, 3], "Holds"),
        ([0.3, 0.2], [1, 3], "Does not hold"),
        ([0.2, 0.3], [3, 3], "Does not hold"),
        ([0.3, 0.301], [1, 3], "Not decided"),
    ],
)
def test_smaller_patches_must_give_more_and_cost_more(judged, claimed, study, top1s, minutes, verdict):
    claim = judged(claimed(), patch_size=study([8, 4], top1s, minutes)).patches
    assert claim.verdict == verdict
    assert claim.values["gain"] == pytest.approx(top1s[1] - top1s[0])
    assert claim.values["cost"] == minutes[1] / minutes[0]


@pytest.mark.parametrize(("last", "verdict"), [(0.6, "Holds"), (0.32, "Does not hold")])
def test_many_epochs_are_needed_where_they_gain_much(judged, claimed, study, last, verdict):
    claim = judged(claimed(), epochs=study([10, 1, 3], [last, 0.3, 0.31])).epochs
    assert claim.verdict == verdict
    assert [row["value"] for row in claim.rows] == [1, 3, 10]
    assert claim.values["pretrained"].name == VIT
    assert judged(claimed(vit=0.31), epochs=study([1, 10], [0.3, last])).epochs.values["pretrained"] is None


def test_shares_of_the_training_images_are_compared_at_each(judged, claimed, study):
    shares = pd.concat(
        [
            study([1.0, 0.01], top1s, model=name)
            for name, top1s in {SCRATCH: [0.4, 0.02], VIT: [0.8, 0.2], CNN: [0.7, 0.1]}.items()
        ]
    )
    few, all_of_them = judged(claimed(), data_efficiency=shares).transfer.rows
    assert few == {"share": 0.01, "epochs": 1, "top1": {SCRATCH: 0.02, VIT: 0.2, CNN: 0.1}, "ratio": pytest.approx(10)}
    assert (all_of_them["share"], all_of_them["ratio"]) == (1, pytest.approx(2))


def sections(text):
    return [part.split("\n\n", 1)[1].strip() for part in text.split("\n## ")[1:]]


def test_every_verdict_is_written_with_its_figures(judged, claimed, study, dataset, candidate):
    course = pd.DataFrame({"step": range(1, 101), "train_top1": 0.5})
    shares = pd.concat([study([0.01, 1.0], [0.1 * i, 0.2 * i], model=m) for i, m in enumerate((SCRATCH, CNN, VIT), 1)])
    found = judged(
        claimed(scratch=0.2),
        pd.concat([course.assign(model=name) for name in (VIT, CNN)]),
        data_efficiency=shares,
        patch_size=study([8, 4], [0.2, 0.3]),
        epochs=study([1, 3, 10], [0.3, 0.5, 0.6]).assign(patch_size=8),
    )
    transfer, one_epoch, patches, epochs = sections(render.claims(found, dataset))
    assert transfer.startswith("**Holds**. On test the pretrained models reach 4.0 times (vit_transfer, 80.0%) and 3.5")
    assert "| 1% | 1 | 10.0% | 30.0% | 20.0% | 3.0 |" in transfer
    assert "10.0 points (" in one_epoch
    assert "after 5%, 10%, 25%, 50% of the epoch: 50%, 50%, 50%, 50% (mobilenet_transfer); 50%" in one_epoch
    assert "with patches of 4 px in 3.0 minutes" in patches
    assert patches.split("\n\n")[0].endswith("+10.0 points for 3.0 times the time.")
    assert "30.0% after 1, 50.0% after 3, 60.0% after 10 epochs on validation" in epochs
    assert "with patches of 8 px. A pretrained one needs no more than one: vit_transfer has 80.0%" in epochs

    for other in (claimed(scratch=0.0, cnn=0.801), claimed(scratch=0.75), [candidate(SCRATCH)]):
        assert all(section.startswith("**") for section in sections(render.claims(judged(other), dataset)))
    longer = claimed()
    longer[1].run["epochs"] = longer[2].run["epochs"] = 2
    longer[2].run["resolved"]["weights"] = "hub"
    assert sections(render.claims(judged(longer), dataset))[1] == (
        "**Not tested**: vit_transfer and mobilenet_transfer were not trained for one epoch."
    )
