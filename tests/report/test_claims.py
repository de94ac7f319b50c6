"""The claims: each verdict follows from the numbers."""

import pandas as pd
import pytest

from stages.report.claims import render


@pytest.fixture
def models(candidate):
    def make(scratch=0.4, vit=0.8, cnn=0.7):
        return [
            candidate("vit_scratch", val=scratch, test=scratch),
            candidate("vit_transfer", val=vit, test=vit),
            candidate("mobilenet_transfer", val=cnn, test=cnn),
        ]

    return make


@pytest.fixture
def claims(dataset, findings):
    """The text of each claim."""

    def make(candidates, steps=None, **studies):
        none = {candidate.name: pd.DataFrame({"step": [], "train_top1": []}) for candidate in candidates}
        text = render(candidates, findings(*candidates), dataset, studies, steps or none)
        return [part.split("\n\n", 1)[1].strip() for part in text.split("\n## ")[1:]]

    return make


def study(values, top1s, minutes, model="vit_scratch", data="d" * 16):
    rows = zip(values, top1s, minutes, strict=True)
    return pd.DataFrame(
        [
            {"model": model, "value": value, "epochs": 1, "val_top1": top1, "minutes": time, "data": data}
            for value, top1, time in rows
        ]
    )


def test_three_to_five_times_is_taken_by_its_word(claims, models):
    assert claims(models(scratch=0.2))[0].startswith("**Holds**. On test the pretrained models reach 4.0 times")
    assert claims(models(scratch=0.4))[0].startswith("**Does not hold** as a number. On test")
    assert claims(models(scratch=0.75))[0].startswith("**Does not hold**. On test")


def test_nothing_is_a_multiple_of_no_picture_at_all(claims, models):
    assert claims(models(scratch=0.0))[0].startswith("**Not tested**: the scratch ViT names no test picture right")


def test_the_faster_adapting_network_is_the_one_that_is_better_beyond_luck(claims, models):
    assert claims(models(cnn=0.7))[1].startswith("**Does not hold**")
    assert claims(models(cnn=0.9))[1].startswith("**Holds**")
    assert claims(models(cnn=0.801))[1].startswith("**Not decided**")
    longer = models()
    longer[1].run["epochs"] = 3
    assert claims(longer)[1].startswith("**Not tested**")


def test_who_was_ahead_within_the_epoch_is_told_where_it_was_reported(claims, models):
    assert "On the way" not in claims(models())[1]
    course = pd.DataFrame({"step": range(20, 1420, 20)})
    course["train_top1"] = course["step"] / 1400
    text = claims(models(), steps=dict.fromkeys(("vit_scratch", "vit_transfer", "mobilenet_transfer"), course))[1]
    assert (
        "after a twentieth, a tenth, a quarter, a half of the epoch: 5%, 10%, 25%, 50% (mobilenet_transfer); 5%" in text
    )


def test_what_no_study_measured_is_not_tested(claims, models):
    _, _, patches, epochs = claims(models())
    assert patches.startswith("**Not tested**")
    assert epochs.startswith("**Not tested**")
    other = study([4, 8], [0.3, 0.2], [3, 1], data="another data set")
    assert claims(models(), patch_size=other, epochs=other)[2:] == [patches, epochs]


def test_smaller_patches_must_give_more_and_cost_more(claims, models):
    text = claims(models(), patch_size=study([8, 4], [0.2, 0.3], [1.0, 3.0]))[2]
    assert text.startswith("**Holds**")
    assert "+10.0 points for 3.0 times the time" in text
    assert claims(models(), patch_size=study([8, 4], [0.3, 0.2], [1.0, 3.0]))[2].startswith("**Does not hold**")
    assert claims(models(), patch_size=study([8, 4], [0.3, 0.301], [1.0, 3.0]))[2].startswith("**Not decided**")


def test_many_epochs_are_needed_where_they_gain_much(claims, models):
    text = claims(models(), epochs=study([10, 1, 3], [0.6, 0.3, 0.5], [30, 3, 9]).assign(patch_size=8))[3]
    assert "each a training of its own, with patches of 8 px." in text
    assert text.startswith("**Holds for one that starts from random weights**: the scratch ViT reaches 30.0% after 1,")
    assert "vit_transfer has 80.0% after its first" in text
    assert claims(models(), epochs=study([1, 10], [0.3, 0.32], [3, 30]))[3].startswith("**Does not hold**")


def test_the_shares_of_the_training_pictures_stand_in_a_table(claims, models):
    shares = pd.concat(
        [
            study([0.01, 1.0], [0.02, 0.4], [1, 3]),
            study([0.01, 1.0], [0.2, 0.8], [1, 3], model="vit_transfer"),
            study([0.01, 1.0], [0.1, 0.7], [1, 3], model="mobilenet_transfer"),
        ]
    )
    text = claims(models(), data_efficiency=shares)[0]
    assert "| 1% | 1 | 2.0% | 20.0% | 10.0% | 10.0 |" in text
    assert "| 100% | 1 | 40.0% | 80.0% | 70.0% | 2.0 |" in text
    assert "2.0 times the scratch ViT's top-1 with 100% of the training pictures, and 10.0 times with 1%" in text


def test_models_that_are_not_there_are_named(claims, candidate):
    assert claims([candidate("vit_scratch"), candidate("mine", test=0.3)])[0] == (
        "**Not tested**: params.yaml has no vit_transfer and no mobilenet_transfer."
    )
