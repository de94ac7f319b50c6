"""Near duplicates: planted ones are found however they were edited, unrelated images are not."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from stages import duplicates
from stages.common.errors import UserError
from stages.data import dataset, near_duplicates
from stages.data.dataset import Prepared
from stages.data.near_duplicates import THRESHOLD
from stages.evaluate import of_images
from stages.evaluation import predictions
from stages.evaluation.significance import share_interval
from stages.evaluation.summary import Predictions


def photographs(count, seed=0):
    """Unrelated images (count, 32, 32, 3) uint8 with the spectrum of photographs: amplitudes fall with frequency."""
    rng = np.random.default_rng(seed)
    waves = np.fft.rfft2(rng.normal(size=(count, 3, 32, 32)))
    frequency = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.rfftfreq(32))
    planes = np.fft.irfft2(waves / np.maximum(frequency, 1 / 32), (32, 32))
    planes = planes.mean(axis=1, keepdims=True) + 0.3 * planes  # channels agree for the most part
    planes = 128 + 50 * planes / planes.std(axis=(1, 2, 3), keepdims=True)
    return np.clip(planes, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def compressed(image):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=60)
    return Image.open(stream)


EDITS = {
    "none": lambda image: image,
    "mirrored": ImageOps.mirror,
    "shifted": lambda image: Image.fromarray(np.pad(image, ((0, 2), (3, 0), (0, 0)), "edge")[2:, :32]),
    "enlarged": lambda image: image.resize((36, 36), Image.Resampling.BILINEAR).crop((2, 2, 34, 34)),
    "stretched": lambda image: image.resize((35, 32), Image.Resampling.BILINEAR).crop((1, 0, 33, 32)),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.5),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "without colour": lambda image: ImageOps.grayscale(image).convert("RGB"),
    "compressed": compressed,
}


@pytest.fixture(scope="module")
def train():
    return photographs(400)


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_copy_is_found(train, name):
    rows = np.arange(0, 400, 13)
    copies = np.stack([np.asarray(EDITS[name](Image.fromarray(train[row]))) for row in rows])
    found = near_duplicates.nearest(copies, train)
    assert (found.rows == rows).mean() >= 0.95
    assert (found.similarity >= THRESHOLD).mean() >= 0.95
    assert found.similarity.max() <= 1


def test_an_unrelated_image_is_not(train):
    others = photographs(200, seed=1)
    assert near_duplicates.nearest(others, train).similarity.max() < THRESHOLD
    blank = np.full((2, 32, 32, 3), 200, np.uint8)
    assert near_duplicates.nearest(blank, np.concatenate([train, blank])).similarity.max() < THRESHOLD, "nothing in it"


def test_the_demo_has_none():
    similar = np.array([0.5, 0.99, 1.0], np.float32)
    assert near_duplicates.are_duplicates(similar, "cifar100").tolist() == [False, True, True]
    assert not near_duplicates.are_duplicates(similar, "demo").any()


def test_a_few_training_images_are_enough(train):
    found = near_duplicates.nearest(train[:5], train[3:5])
    assert found.rows[3:].tolist() == [0, 1]
    assert (found.similarity >= THRESHOLD).tolist() == [False, False, False, True, True]


@pytest.fixture
def prepared(tmp_path, monkeypatch, train):
    """A data set of two classes, whose test images 1 and 2 and gate image 0 have a near duplicate in train."""
    monkeypatch.chdir(tmp_path)
    other = photographs(30, seed=2)
    blurred = ndimage.gaussian_filter(train[[7, 8, 9]].astype(float), (0, 0.4, 0.4, 0)).astype(np.uint8)
    test, gate = np.concatenate([other[:1], blurred[:2], other[1:8]]), np.concatenate([blurred[2:], other[8:12]])
    splits = {"train": train, "val": other[12:20], "gate": gate, "test": test}
    labels = {name: np.arange(len(images), dtype=np.int64) % 2 for name, images in splits.items()}
    labels["test"][2] = 1  # training image 8 is of class 0
    dataset.write(
        Path("data/prepared"),
        source="cifar100",
        class_names=["ape", "bee"],
        superclass_names=["animal"],
        superclass_of_class=[0, 0],
        splits={name: (splits[name], labels[name]) for name in splits},
        facts={},
    )
    return Prepared.open(Path("data/prepared"))


def test_the_stage_counts_them_by_split_and_shows_pairs(prepared):
    duplicates.main()
    facts = json.loads(Path("reports/near_duplicates.json").read_text())
    assert {name: facts[name]["with_near_duplicate"] for name in ("val", "gate", "test")} == {
        "val": 0,
        "gate": 1,
        "test": 2,
    }
    assert facts["test"] == {"images": 10, "with_near_duplicate": 2, "share": 0.2, "of_another_class": 1}
    assert facts["data_sha256"] == prepared.data_sha256
    with np.load("data/duplicates.npz") as stored:
        assert stored["test_rows"][[1, 2]].tolist() == [7, 8]
        assert stored["gate_rows"][0] == 9
    assert predictions.with_near_duplicate("test", prepared).nonzero()[0].tolist() == [1, 2]
    with Image.open("reports/near_duplicates.png") as sheet:
        assert sheet.width > 1_000


def test_duplicates_of_other_data_are_refused(prepared):
    with pytest.raises(UserError, match="run `dvc repro duplicates`"):
        predictions.with_near_duplicate("test", prepared)
    duplicates.main()
    with np.load("data/duplicates.npz") as stored:
        np.savez("data/duplicates.npz", **dict(stored) | {"test_similarity": stored["test_similarity"][:3]})
    with pytest.raises(UserError, match="dvc repro --force duplicates"):
        predictions.with_near_duplicate("test", prepared)


def test_top1_is_given_on_the_images_without_one():
    logits, labels = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0, 0]], np.array([0, 1, 2, 3, 1, 2])
    is_duplicate = np.array([True, True, True, False, False, True])
    found = of_images(Predictions(logits, labels), ~is_duplicate)
    assert (found["top1"], found["images"]) == (0.5, 2)
    assert (found["top1_low"], found["top1_high"]) == share_interval(np.array([True, False]))
    assert of_images(Predictions(logits, labels), np.zeros(6, bool)) is None
