"""Scores by class and by length, counted by hand and by the slow way."""

from __future__ import annotations

import numpy as np
import pytest

from course_utils.errors import DataError
from course_utils.measure.accuracy import bootstrap
from course_utils.measure.by_class import by_class, by_length

NAMES = ["low", "middle", "high"]


def slow(labels, predicted, k):
    """n, precision, recall and F1 of class k from (N, C) tables of 0 and 1."""
    both = sum(1 for a, b in zip(labels, predicted, strict=True) if a[k] and b[k])
    has, said = labels[:, k].sum(), predicted[:, k].sum()
    precision, recall = both / said if said else 0, both / has if has else 0
    f1 = 2 * precision * recall / (precision + recall) if both else 0
    return [has, precision, recall, f1]


def test_one_label_per_text():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(60, 3)), generator.integers(3, size=60)
    rows = by_class(logits, labels, NAMES)
    assert [row["name"] for row in rows] == NAMES
    assert list(rows[0]) == ["name", "n", "precision", "recall", "f1"]
    for k, row in enumerate(rows):
        expected = slow(np.eye(3)[labels], np.eye(3)[logits.argmax(1)], k)
        assert list(row.values())[1:] == pytest.approx(expected)
        assert {type(value) for value in row.values()} == {str, int, float}


def test_several_labels_per_text():
    generator = np.random.default_rng(1)
    logits, labels = generator.normal(size=(60, 3)), generator.integers(2, size=(60, 3))
    for k, row in enumerate(by_class(logits, labels, NAMES)):
        assert list(row.values())[1:] == pytest.approx(slow(labels, logits > 0, k))


def test_a_class_never_predicted_and_one_without_texts_are_there_without_a_warning(recwarn):
    rows = by_class(np.eye(3)[[0, 0, 2, 0]], [0, 1, 1, 0], NAMES)
    assert rows[1] == {"name": "middle", "n": 2, "precision": 0, "recall": 0, "f1": 0}
    assert rows[2] == {"name": "high", "n": 0, "precision": 0, "recall": 0, "f1": 0}
    assert not recwarn.list


@pytest.mark.parametrize(
    ("shape", "labels", "words"),
    [
        ((2, 4), [0, 1], "3 names"),
        ((3,), [0, 1, 2], "3 names"),
        ((2, 3), [0, 3], "Label 3"),
        ((2, 3), [0], "2 texts; labels are"),
        ((2, 3), [[0, 1]], "labels must be 0 or 1"),
        ((1, 3), [[-100, -100, -100]], "labels must be 0 or 1"),
        ((0, 3), np.empty((0, 3)), "at least one"),
        ((0, 3), [], "0 texts"),
    ],
)
def test_what_cannot_be_told_apart(shape, labels, words):
    with pytest.raises(DataError, match=words):
        by_class(np.zeros(shape), labels, NAMES)


def test_lengths_make_bins_of_about_equal_size():
    lengths = np.random.default_rng(0).permutation(100) + 1
    rows = by_length(lengths, lengths <= 60)
    assert [(row["shortest"], row["longest"], row["n"]) for row in rows] == [
        (1, 25, 25),
        (26, 50, 25),
        (51, 75, 25),
        (76, 100, 25),
    ]
    assert [row["accuracy"] for row in rows] == [1, 1, 10 / 25, 0]
    assert (rows[2]["accuracy_low"], rows[2]["accuracy_high"]) == bootstrap(0.4, 25)


def test_equal_lengths_share_a_bin():
    rows = by_length([7] * 90 + [9] * 10, [True] * 100)
    assert [(row["shortest"], row["longest"], row["n"]) for row in rows] == [(7, 7, 90), (9, 9, 10)]
    assert len(by_length([5], [False])) == 1


@pytest.mark.parametrize(
    ("lengths", "right", "n_bins"), [([], [], 4), ([3], [True, False], 4), ([3], [True], 0)]
)
def test_lengths_that_cannot_be_binned(lengths, right, n_bins):
    with pytest.raises(DataError, match="cannot be made"):
        by_length(lengths, right, n_bins)
