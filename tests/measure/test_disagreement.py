"""Texts on which teacher and student differ: who, in which order, and the test of the counts."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from scipy.special import softmax

from course_utils.errors import DataError
from course_utils.measure.disagreement import disagreements, outcome_table

NAMES = ["a", "b", "c"]


def sure(classes, sizes=1.0):
    """Logits that choose these classes, the surer the bigger the sizes."""
    return np.eye(3)[classes] * np.reshape(np.broadcast_to(sizes, len(classes)), (-1, 1))


def test_a_text_with_all_that_is_said_about_it():
    texts = ["agreed", "teacher's", "student's", "nobody's"]
    teacher, student = sure([0, 1, 1, 2], [9, 3, 2, 1]), sure([0, 0, 0, 1], [9, 1, 1, 1])
    found = disagreements(texts, [0, 1, 0, 0], teacher, student, NAMES)
    assert [one.text for one in found] == ["teacher's", "student's", "nobody's"]
    assert [one.right for one in found] == ["teacher", "student", "neither"]
    first = found[0]
    assert (first.label, first.teacher, first.student) == ("b", "b", "a")
    assert first.teacher_prob == pytest.approx(softmax([0, 3, 0])[1])
    assert first.student_prob == pytest.approx(softmax([1, 0, 0])[0])


def test_the_most_confident_come_first_and_no_pair_fills_the_list():
    texts = [f"common {k}" for k in range(30)] + ["rare", "rarer"]
    teacher = sure([0] * 30 + [1, 2], [*np.linspace(9, 5, 30), 0.5, 0.4])
    student = sure([1] * 30 + [2, 0], 2.0)
    found = [one.text for one in disagreements(texts, [0] * 32, teacher, student, NAMES, n=5)]
    assert found == ["common 0", "common 1", "common 2", "rare", "rarer"]
    assert len(disagreements(texts, [0] * 32, teacher, student, NAMES, n=100)) == 32


def test_both_ways_round_are_two_pairs():
    teacher, student = sure([0, 0, 1], [9, 8, 1]), sure([1, 1, 0])
    found = disagreements(["x", "y", "z"], [0] * 3, teacher, student, NAMES, n=2)
    assert [one.text for one in found] == ["x", "z"]


def test_models_that_agree_have_nothing_to_read():
    assert disagreements(["x"], [0], sure([1]), sure([1], 5.0), NAMES) == []


def test_every_text_has_one_outcome():
    generator = np.random.default_rng(0)
    teacher, student = generator.normal(size=(2, 200, 3))
    labels = generator.integers(3, size=200)
    table = outcome_table(labels, teacher, student)
    counts = dict.fromkeys(table, 0)
    for label, t, s in zip(labels, teacher.argmax(1), student.argmax(1), strict=True):
        if t == label or s == label:
            names = {(True, True): "both_right", (True, False): "only_teacher"}
            counts[names.get((t == label, s == label), "only_student")] += 1
        else:
            counts["both_wrong_same" if t == s else "both_wrong_different"] += 1
    assert {**table, "p": 0} == counts
    assert sum(counts.values()) == 200


@pytest.mark.parametrize(("only_teacher", "only_student"), [(0, 0), (3, 3), (9, 2), (1, 12)])
def test_p_is_the_binomial_tail_counted_twice(only_teacher, only_student):
    n, less = only_teacher + only_student, min(only_teacher, only_student)
    labels = [0] * n + [0] * 5
    teacher = sure([0] * only_teacher + [1] * only_student + [0] * 5)
    student = sure([1] * only_teacher + [0] * only_student + [0] * 5)
    table = outcome_table(labels, teacher, student)
    assert (table["only_teacher"], table["only_student"]) == (only_teacher, only_student)
    expected = min(1, 2 * sum(comb(n, k) for k in range(less + 1)) / 2**n)
    assert table["p"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "teacher", "student", "words"),
    [
        ([0], sure([0]), sure([0, 1]), r"the student's \(2, 3\)"),
        ([0, 1], sure([0]), sure([0]), "1 texts; labels are"),
        ([3], sure([0]), sure([0]), "Label 3"),
        ([0], sure([0]) * np.nan, sure([0]), "not a finite number"),
    ],
)
def test_what_cannot_be_compared(labels, teacher, student, words):
    with pytest.raises(DataError, match=words):
        outcome_table(labels, teacher, student)
    with pytest.raises(DataError, match=words):
        disagreements(["x"] * len(labels), labels, teacher, student, NAMES)


def test_a_text_or_a_name_too_few_is_refused():
    with pytest.raises(DataError, match="1 texts and 3 names"):
        disagreements(["x"], [0, 1], sure([0, 1]), sure([0, 1]), NAMES)
    with pytest.raises(DataError, match="2 names"):
        disagreements(["x"], [0], sure([0]), sure([0]), NAMES[:2])
