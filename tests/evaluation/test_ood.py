"""Out-of-distribution images by a low maximum softmax probability."""

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as torchmetrics

from stages.evaluation import ood


def test_the_threshold_flags_five_per_cent_of_in_distribution_images(honest):
    logits, _ = honest(10_000)
    threshold = ood.threshold(logits)
    assert ood.flagged(logits, threshold) == pytest.approx(0.05, abs=0.001)
    new, _ = honest(10_000, seed=1)
    assert ood.flagged(new, threshold) == pytest.approx(0.05, abs=0.01)
    assert ood.flagged(np.zeros((10, 10), np.float32), threshold) == 1


def test_auroc_equals_torchmetrics_and_is_a_half_for_the_same_distribution(honest):
    known, other = honest(500)[0], honest(500, seed=1)[0] * 0.5
    scores = np.concatenate([ood.scores(logits) for logits in (known, other)])
    truth = np.repeat([1, 0], 500)
    expected = torchmetrics.binary_auroc(torch.from_numpy(scores), torch.from_numpy(truth))
    assert ood.auroc(known, other) == pytest.approx(float(expected), abs=1e-6)
    assert ood.auroc(known, known) == pytest.approx(0.5)
