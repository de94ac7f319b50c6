"""Calibration against torchmetrics, scikit-learn and classifiers whose calibration is known."""

import numpy as np
import pytest
import sklearn.metrics
import torch
import torchmetrics.functional.classification as torchmetrics
from scipy.special import softmax

from stages.evaluation import calibration


def test_negative_log_likelihood_and_brier_score_equal_scikit_learns(honest):
    logits, labels = honest(400)
    probabilities, classes = softmax(logits.astype(float) / 2, axis=1), range(10)
    nll = sklearn.metrics.log_loss(labels, probabilities, labels=classes)
    brier = sklearn.metrics.brier_score_loss(labels, probabilities, labels=classes, scale_by_half=False)
    assert calibration.negative_log_likelihood(logits, labels, 2.0) == pytest.approx(nll, abs=1e-6)
    assert calibration.brier_score(logits, labels, 2.0) == pytest.approx(brier)


def test_negative_log_likelihood_survives_extreme_logits():
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    assert calibration.negative_log_likelihood(logits, np.array([0, 1])) == 0
    assert calibration.negative_log_likelihood(logits, np.array([1, 0])) == pytest.approx(2e4)


def test_the_calibration_error_equals_torchmetrics_where_bins_hold_equal_numbers():
    # One confidence per bin of equal width, as many examples in each: bins of equal mass are the same bins.
    rng, bins = np.random.default_rng(0), calibration.BINS
    confidences = np.repeat(0.5 + (np.arange(bins) + 0.5) / (2 * bins), 50)
    probabilities = np.stack([confidences, 1 - confidences], axis=1)
    labels = (rng.random(len(confidences)) > confidences**2).astype(int)
    expected = torchmetrics.multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), num_classes=2, n_bins=2 * bins, norm="l1"
    )
    found = calibration.expected_calibration_error(np.log(probabilities), labels)
    assert found == pytest.approx(float(expected), abs=1e-6)
    assert found > 0.05


def test_the_calibration_error_of_bins_of_equal_width_equals_torchmetrics(honest):
    logits, labels = honest(2_000)
    probabilities = softmax(logits.astype(float) * 1.5, axis=1)
    expected = torchmetrics.multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), num_classes=10, n_bins=calibration.BINS, norm="l1"
    )
    found = calibration.expected_calibration_error(logits * 1.5, labels, bins="width")
    assert found == pytest.approx(float(expected), abs=1e-6)
    assert found != pytest.approx(calibration.expected_calibration_error(logits * 1.5, labels), abs=1e-6)


@pytest.mark.parametrize("factor", [0.3, 1.0, 3.0])
def test_the_temperature_undoes_what_made_a_classifier_too_sure_or_too_modest(honest, factor):
    logits, labels = honest(20_000)
    temperature = calibration.fit_temperature(logits * factor, labels)
    assert temperature == pytest.approx(factor, rel=0.03)
    before = calibration.expected_calibration_error(logits * factor, labels)
    after = calibration.expected_calibration_error(logits * factor, labels, temperature)
    assert after < 0.015
    assert before < 0.015 if factor == 1 else before > 0.1


def test_bins_hold_equal_numbers_and_rise(honest):
    bins = calibration.reliability(*honest(1_000))
    assert bins["images"].sum() == 1_000
    assert set(bins["images"]) <= {66, 67}
    assert bins["confidence"].is_monotonic_increasing
    assert calibration.reliability(*honest(5))["images"].tolist() == [1] * 5
