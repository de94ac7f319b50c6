"""The demo data set."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from stages.common.settings import Compute
from stages.data.sources import demo
from stages.models import params
from stages.models.base import Examples, Reporter
from stages.models.vit_scratch.model import VitScratch

SHIPPED = Path(__file__).parents[2] / "params.yaml"


def test_100_classes_in_20_superclasses_of_5_all_images_different():
    archive, same, other = (demo.generate(3, 2, seed) for seed in (0, 0, 1))
    assert len(set(archive.class_names)) == 100
    assert len(archive.superclass_names) == 20
    assert np.bincount(archive.train.classes).tolist() == [3] * 100
    assert np.bincount(archive.test.superclasses).tolist() == [10] * 20
    for index, name in enumerate(archive.class_names):
        assert name.split()[1] == archive.superclass_names[index // 5]
    assert len({image.tobytes() for records in archive[:2] for image in records.pixels}) == 500
    np.testing.assert_array_equal(archive.train.pixels, same.train.pixels)
    assert not np.array_equal(archive.train.pixels, other.train.pixels)


def test_hue_says_nothing_about_the_class():
    archive = demo.generate(40, 1, 0)
    colours = np.diff(archive.train.images().mean((1, 2)))  # green over red, blue over green
    by_class = np.stack([colours[archive.train.classes == label].mean(0) for label in range(100)])
    # Means of 40 images each scatter as if drawn from one and the same population.
    assert (by_class.std(0) < 1.35 * colours.std(0) / np.sqrt(40)).all()


def test_no_mirror_image_of_a_shape_is_another_shape():
    row, column = np.mgrid[-1:1:41j, -1:1:41j]
    masks = {name: shape(column, row) > 1e-6 for name, shape in demo.SHAPES.items()}
    for name, mask in masks.items():
        assert 0.1 < mask.mean() < 0.9, name
        for other, other_mask in masks.items():
            overlap = (mask[:, ::-1] & other_mask).sum() / (mask[:, ::-1] | other_mask).sum()
            assert (overlap > 0.95) == (name == other), (name, other, overlap)


@pytest.mark.slow
def test_a_short_training_learns_what_a_linear_model_does_not():
    archive = demo.generate(100, 20, 0)

    def pixels(records):
        return records.pixels.astype(np.float32) / 255 - 0.5

    linear = RidgeClassifier(alpha=1e3).fit(pixels(archive.train), archive.train.classes)
    linear_top1 = linear.score(pixels(archive.test), archive.test.classes)
    assert 0.05 < linear_top1 < 0.18

    small = {"patch_size": 8, "embed_dim": 96, "depth": 3}
    settings = params.read(SHIPPED).model("vit_scratch").model_copy(update=small)
    top1 = []
    VitScratch(settings, num_classes=100, image_size=32).fit(
        Examples(archive.train.images(), archive.train.labels()),
        Examples(archive.test.images(), archive.test.labels()),
        epochs=6,
        compute=Compute(accelerator="cpu", precision="float32", threads=1),
        reporter=Reporter(lambda step, metrics: None, lambda epoch, metrics: top1.append(metrics["val_top1"])),
    )
    assert top1[-1] > linear_top1 + 0.1
