"""The demo data set: hard enough, and not too hard. tests/data/test_prepare.py holds its bytes."""

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from stages.common.settings import Compute
from stages.data.sources import demo
from stages.models import params
from stages.models.vit_scratch.model import VitScratch
from stages.training import fit
from stages.training.batches import LabeledImages
from stages.training.progress import Reporter
from tests.changed_params import SHIPPED


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
    fit(
        VitScratch(settings, num_classes=100, image_size=32),
        LabeledImages(archive.train.images(), archive.train.labels()),
        LabeledImages(archive.test.images(), archive.test.labels()),
        epochs=6,
        compute=Compute(accelerator="cpu", precision="float32", threads=1),
        reporter=Reporter(on_epoch=lambda epoch, metrics: top1.append(metrics["val_top1"])),
    )
    assert top1[-1] > linear_top1 + 0.1
