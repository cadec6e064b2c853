"""Calibration: a slow reference, chance, and temperatures that are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from course_utils.errors import DataError
from course_utils.measure.calibration import calibration, fitted_temperature


def drawn(n, *, n_classes=4, temperature=1.0, seed=0):
    """Logits, and labels drawn from softmax(logits / T): a model that is calibrated at T."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=2.5, size=(n, n_classes))
    probs = softmax(logits / temperature, axis=1)
    labels = (probs.cumsum(1) > generator.random((n, 1))).argmax(1)
    return logits, labels


def slow_ece(probs, labels, n_bins):
    """Guo et al. 2017, equation 3, word by word: bin m holds confidences in ((m-1)/M, m/M]."""
    total = 0.0
    for m in range(1, n_bins + 1):
        inside = []
        for row, label in zip(probs, labels, strict=True):
            if (m - 1) / n_bins < max(row) <= m / n_bins:
                inside.append((max(row), float(list(row).index(max(row)) == label)))
        if inside:
            confidence, accuracy = np.mean(inside, axis=0)
            total += len(inside) / len(probs) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("n_bins", [1, 10, 15])
@pytest.mark.parametrize("n_classes", [2, 7])
def test_the_error_is_that_of_the_paper(n_bins, n_classes):
    logits, labels = drawn(300, n_classes=n_classes, temperature=2)
    probs = softmax(logits, axis=1)
    found = calibration(probs, labels, n_bins)
    assert found.ece == pytest.approx(slow_ece(probs, labels, n_bins))
    assert sum(one.n for one in found.bins) == 300
    assert found.ece == pytest.approx(
        sum(one.n * abs(one.accuracy - one.confidence) for one in found.bins) / 300
    )
    assert all(one.n and one.low < one.confidence <= one.high for one in found.bins)


def test_bins_by_hand():
    probs = [[0.6, 0.4], [0.5, 0.5], [0.1, 0.9], [1.0, 0.0]]
    found = calibration(np.array(probs), [0, 1, 1, 1], 4)
    assert [(one.low, one.high, one.n) for one in found.bins] == [
        (0.25, 0.5, 1),  # 0.5 is at most 0.5
        (0.5, 0.75, 1),
        (0.75, 1.0, 2),
    ]
    assert [one.confidence for one in found.bins] == pytest.approx([0.5, 0.6, 0.95])
    assert [one.accuracy for one in found.bins] == [0, 1, 0.5]
    assert found.ece == pytest.approx((0.5 + 0.4 + 2 * 0.45) / 4)
    assert json.loads(json.dumps(found.as_dict()))["bins"][1]["accuracy"] == 1


def test_the_interval_holds_the_error_and_misses_the_one_chance_makes():
    logits, labels = drawn(1500, temperature=2)
    too_sure = calibration(softmax(logits, axis=1), labels)
    assert 0 < too_sure.ece_low < too_sure.ece < too_sure.ece_high
    assert too_sure.ece > 3 * too_sure.ece_by_chance
    calibrated = calibration(softmax(logits / 2, axis=1), labels)
    assert calibrated.ece_low <= calibrated.ece <= calibrated.ece_high
    assert calibrated.ece_low < 0.01
    assert calibrated.ece < 0.3 * too_sure.ece


def test_calibrated_models_are_below_chance_95_times_in_100(monkeypatch):
    monkeypatch.setattr("course_utils.measure.calibration.RESAMPLES", 100)
    below = []
    for seed in range(150):
        logits, labels = drawn(200, seed=seed)
        found = calibration(softmax(logits, axis=1), labels, seed=seed)
        below.append(found.ece < found.ece_by_chance)
    assert 0.9 < np.mean(below) < 0.99


def test_the_interval_covers_the_true_error(monkeypatch):
    """Of a model that is too sure: the error of very many texts lies inside 9 times in 10."""
    monkeypatch.setattr("course_utils.measure.calibration.RESAMPLES", 100)
    logits, labels = drawn(60_000, temperature=2)
    probs = softmax(logits, axis=1)
    parts = [slice(400 * k, 400 * k + 400) for k in range(150)]
    found = [calibration(probs[part], labels[part], seed=k) for k, part in enumerate(parts)]
    monkeypatch.setattr("course_utils.measure.calibration.RESAMPLES", 1)
    true = calibration(probs, labels).ece
    assert np.mean([one.ece_low <= true <= one.ece_high for one in found]) > 0.88


def test_equal_seeds_give_equal_intervals():
    logits, labels = drawn(100)
    probs = softmax(logits, axis=1)
    assert calibration(probs, labels, seed=1) == calibration(probs, labels, seed=1)
    assert calibration(probs, labels, seed=1).ece_high != calibration(probs, labels).ece_high


@pytest.mark.parametrize(
    ("probs", "labels", "words"),
    [
        ([[2.0, -1.0]], [0], "add up to 1"),
        ([[3.0, 1.0]], [0], "add up to 1"),
        ([[np.nan, 0.5]], [0], "add up to 1"),
        ([0.5, 0.5], [0], "add up to 1"),
        ([[0.5, 0.5]], [2], "Label 2 is none of the 2"),
        ([[0.5, 0.5]], [-100], "Label -100"),
        ([[0.5, 0.5]], [0, 1], "1 texts; labels are"),
        (np.empty((0, 2)), [], "0 texts"),
    ],
)
def test_what_cannot_be_measured(probs, labels, words):
    with pytest.raises(DataError, match=words):
        calibration(np.array(probs), labels)


def test_no_bin_is_refused():
    with pytest.raises(DataError, match="0 bins"):
        calibration(np.array([[0.5, 0.5]]), [0], 0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    logits, labels = drawn(20_000, temperature=temperature)
    assert fitted_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_no_other_temperature_has_a_lower_loss():
    logits, labels = drawn(80, temperature=2, seed=3)

    def loss(temperature):
        log_probs = log_softmax(logits / temperature, axis=1)
        return -log_probs[np.arange(len(labels)), labels].mean()

    found = fitted_temperature(logits, labels)
    tried = np.geomspace(0.05, 20, 4000)
    assert loss(found) <= min(map(loss, tried)) + 1e-9
    assert fitted_temperature(logits + 7, labels) == pytest.approx(found)
    assert fitted_temperature(3 * logits, labels) == pytest.approx(3 * found, rel=1e-3)


def test_models_without_a_best_temperature_get_the_ends():
    logits = np.eye(3) * 5
    assert fitted_temperature(logits, [0, 1, 2]) == pytest.approx(0.05, rel=1e-3)
    assert fitted_temperature(logits, [1, 2, 0]) == pytest.approx(20, rel=1e-3)
    assert fitted_temperature(np.array([[900.0, -900.0]]), [0]) >= 0.05  # nothing overflows


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        ([[np.inf, 0.0]], [0], "not finite"),
        ([0.0, 1.0], [0], "not finite numbers of shape"),
        ([[0.0, 1.0]], [5], "Label 5"),
        (np.empty((0, 3)), [], "0 texts"),
    ],
)
def test_a_temperature_that_cannot_be_fitted(logits, labels, words):
    with pytest.raises(DataError, match=words):
        fitted_temperature(np.array(logits), labels)
