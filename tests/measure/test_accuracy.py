"""Scores by hand, and intervals against the exact binomial distribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, ttest_1samp
from sklearn.metrics import accuracy_score, f1_score

from course_utils.errors import DataError
from course_utils.measure.accuracy import bootstrap, over_seeds_and_texts, score


def one_hot(classes, n_classes=3):
    return np.eye(n_classes, dtype=np.float32)[classes]


def test_scores_by_hand():
    labels = [0, 0, 0, 1, 1, 2]
    scores = score(one_hot([0, 0, 1, 1, 0, 2]), labels, teacher_logits=one_hot([0, 1, 1, 1, 2, 2]))
    assert scores["accuracy"] == pytest.approx(4 / 6)
    # Class 0: precision 2/3, recall 2/3; class 1: 1/2, 1/2; class 2: 1, 1.
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert scores["agreement"] == pytest.approx(4 / 6)  # right or wrong does not matter here
    assert list(scores) == ["accuracy", "accuracy_low", "accuracy_high", "macro_f1", "agreement"]
    assert {type(value) for value in scores.values()} == {float}


def test_the_teacher_agrees_with_itself_and_is_optional():
    logits = np.random.default_rng(0).normal(size=(50, 4))
    labels = np.arange(50) % 4
    assert score(logits, labels, teacher_logits=logits)["agreement"] == 1
    assert "agreement" not in score(logits, labels)


def test_a_class_that_does_not_occur_does_not_count():
    assert score(one_hot([0, 1]), [0, 1])["macro_f1"] == 1


def test_scale_and_shift_of_logits_change_nothing():
    draw = np.random.default_rng(1)
    logits, labels = draw.normal(size=(80, 3)), draw.integers(3, size=80)
    assert score(logits, labels) == score(5 * logits - 2, labels)


@pytest.mark.parametrize(("share", "n"), [(0.9, 872), (0.7, 2000), (0.5, 100), (0.98, 60)])
def test_interval_is_that_of_the_exact_distribution(share, n):
    exact = binom.ppf([0.025, 0.975], n, share) / n
    spread = np.sqrt(share * (1 - share) / n)
    np.testing.assert_allclose(bootstrap(share, n), exact, atol=0.25 * spread + 1 / n)


def test_interval_is_that_of_resampling_texts():
    """The obvious way: draw the texts again, 2000 times, and score each draw."""
    draw = np.random.default_rng(2)
    right = draw.random(300) < 0.8
    resampled = right[draw.integers(300, size=(2000, 300))].mean(1)
    np.testing.assert_allclose(
        bootstrap(right.mean(), 300), np.percentile(resampled, [2.5, 97.5]), atol=0.008
    )


def test_interval_covers_the_truth_95_times_in_100():
    draw = np.random.default_rng(3)
    intervals = [bootstrap(right / 200, 200, seed=k) for k, right in
                 enumerate(draw.binomial(200, 0.8, 1000))]  # fmt: skip
    covered = np.mean([low <= 0.8 <= high for low, high in intervals])
    assert 0.92 < covered < 0.975


def test_the_seed_decides():
    logits, labels = one_hot(np.arange(100) % 3), np.arange(100) % 2
    assert score(logits, labels) == score(logits, labels, seed=0)
    assert len({bootstrap(0.731, 999, seed=seed) for seed in range(20)}) > 1


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (one_hot([0, 1]), [0], r"\(2, 3\), labels \(1,\)"),
        (one_hot([0, 1])[0], [0, 1, 2], r"\(3,\)"),
        (np.empty((0, 3)), [], "no text"),
        (one_hot([0, 1]), [0, 3], "Label 3 is none of the 3"),
        (one_hot([0, 1]), [-100, 1], "Label -100"),
        (one_hot([0, 1]) * [[1], [np.nan]], [0, 1], "(?s)not a number.*text 1"),
    ],
)
def test_what_cannot_be_scored(logits, labels, words):
    with pytest.raises(DataError, match=words):
        score(logits, labels)


def test_a_teacher_on_other_texts():
    with pytest.raises(DataError, match=r"the teacher's \(3, 3\)"):
        score(one_hot([0, 1]), [0, 1], teacher_logits=one_hot([0, 1, 2]))


# Several classes per text

SETS = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]])
SAID = np.array([[1, 0, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]])  # right, wrong, right, wrong


def signs(said, scale: float = 1.0):
    """Logits that say yes to 1 and no to 0."""
    return scale * (2.0 * np.asarray(said) - 1)


def test_sets_by_hand():
    scores = score(signs(SAID), SETS, teacher_logits=signs([[1, 0, 0]] * 4))
    assert scores["accuracy"] == 2 / 4
    # Class 0: 2 hits, 3 said, 2 true; class 1: 1 hit, 1 said, 2 true; class 2 does not occur.
    assert scores["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert scores["micro_f1"] == pytest.approx(2 * 3 / (4 + 4))
    assert scores["agreement"] == 2 / 4
    assert (scores["accuracy_low"], scores["accuracy_high"]) == bootstrap(0.5, 4)
    names = ["accuracy", "accuracy_low", "accuracy_high", "macro_f1", "micro_f1", "agreement"]
    assert list(scores) == names
    assert {type(value) for value in scores.values()} == {float}


@pytest.mark.parametrize("n_classes", [2, 5])
def test_sets_are_scored_as_scikit_learn_does(n_classes):
    draw = np.random.default_rng(4)
    logits, labels = draw.normal(size=(200, n_classes)), draw.random((200, n_classes)) < 0.3
    scores = score(logits, labels.astype(np.float32))
    said = logits > 0
    assert scores["accuracy"] == pytest.approx(accuracy_score(labels, said))
    for average in ("macro", "micro"):
        assert scores[f"{average}_f1"] == pytest.approx(f1_score(labels, said, average=average))


def test_the_scale_of_logits_of_sets_changes_nothing_but_a_shift_does():
    draw = np.random.default_rng(5)
    logits, labels = draw.normal(size=(80, 3)), draw.integers(2, size=(80, 3))
    assert score(logits, labels) == score(7 * logits, labels)
    assert score(logits, labels) != score(logits - 2, labels)


def test_one_class_that_applies_or_not():
    scores = score(signs([[1], [0], [0], [1]]), [[1], [0], [1], [1]])
    assert scores["accuracy"] == 3 / 4
    assert scores["macro_f1"] == scores["micro_f1"] == pytest.approx(4 / 5)


def test_nothing_applies_and_nothing_is_said():
    scores = score(signs(np.zeros((3, 2))), np.zeros((3, 2)))
    assert scores["accuracy"] == scores["macro_f1"] == scores["micro_f1"] == 1


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([[1, 0, 0]], r"\(2, 3\), labels \(1, 3\)"),
        ([[1, 0], [1, 0]], r"labels \(2, 2\)"),
        ([[1, 0, 0], [0, 2, 0]], "(?s)is 2, neither 0 nor 1.*text 1, class 1"),
        ([[-100] * 3, [0, 0, 0]], "(?s)is -100, .*text 0, class 0"),
    ],
)
def test_sets_that_cannot_be_scored(labels, words):
    with pytest.raises(DataError, match=words):
        score(signs(SAID[:2]), labels)


def test_the_interval_over_texts_alone_is_students():
    values = np.random.default_rng(0).normal(size=(1, 40))
    mean, half = over_seeds_and_texts(values)
    expected = ttest_1samp(values[0], 0).confidence_interval(0.95)
    np.testing.assert_allclose([mean - half, mean + half], expected)


def test_the_interval_over_seeds_alone_is_students():
    seeds = np.array([1.0, 2.0, 4.0])
    mean, half = over_seeds_and_texts(np.repeat(seeds[:, None], 50, axis=1))
    expected = ttest_1samp(seeds, 0).confidence_interval(0.95)
    np.testing.assert_allclose([mean - half, mean + half], expected)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    dice, held = np.random.default_rng(1), []
    for _ in range(600):
        seeds, texts = 0.7 * dice.normal(size=(3, 1)), 5 * dice.normal(size=(1, 100))
        mean, half = over_seeds_and_texts(seeds + texts + dice.normal(size=(3, 100)))
        held.append(abs(mean) <= half)
    assert 0.93 <= np.mean(held) <= 1


def test_no_difference_at_all_has_no_width():
    assert over_seeds_and_texts(np.zeros((3, 5))) == (0, 0)


def test_one_text_has_no_interval():
    with pytest.raises(DataError, match="two texts"):
        over_seeds_and_texts(np.ones((3, 1)))
