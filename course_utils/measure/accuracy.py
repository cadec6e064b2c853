"""How often a classifier is right, how sure we are of that number, and how it agrees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import accuracy_score, f1_score

from course_utils.errors import DataError

RESAMPLES = 2000


def score(
    logits: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    *,
    teacher_logits: np.ndarray | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """`accuracy`, `accuracy_low`, `accuracy_high`, `macro_f1` and, with a teacher, `agreement`.

    `logits` and `teacher_logits` are (N, C), `labels` (N,) from 0 to C - 1. Low and high are the
    95 % percentile bootstrap (Efron 1979) over 2000 resamples of the N texts. Macro-F1 is the mean
    over the classes that occur; agreement the share of texts put in the teacher's class. Raises
    `DataError` when shapes differ, there is no text, a logit is NaN or a label has no logit.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    _check(logits, labels)
    predicted = logits.argmax(1)
    accuracy = float(accuracy_score(labels, predicted))
    low, high = bootstrap(accuracy, len(labels), seed=seed)
    scores = {
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "macro_f1": float(f1_score(labels, predicted, average="macro")),
    }
    if teacher_logits is not None:
        teacher_logits = np.asarray(teacher_logits)
        if teacher_logits.shape != logits.shape:
            raise DataError(
                f"Logits are {logits.shape}, the teacher's {teacher_logits.shape}.",
                do="Compute both on the same texts, for the same classes.",
            )
        scores["agreement"] = float(np.mean(predicted == teacher_logits.argmax(1)))
    return scores


def bootstrap(share: float, n: int, *, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval, low and high, of a share measured on `n` texts."""
    # Drawing n texts with replacement, of which this share is right, and counting the right ones
    # is one draw from a binomial distribution: 2000 numbers stand for 2000 resamples.
    resampled = np.random.default_rng(seed).binomial(n, share, RESAMPLES) / n
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)


def _check(logits: np.ndarray, labels: np.ndarray) -> None:
    if logits.ndim != 2 or labels.ndim != 1 or len(logits) != len(labels):
        raise DataError(
            f"Logits are {logits.shape}, labels {labels.shape}.",
            do="Give logits of shape (texts, classes) and one label for each text.",
        )
    if not len(labels):
        raise DataError("There is no text to score.", do="Give at least one text and its label.")
    if np.isnan(logits).any():
        row = int(np.isnan(logits).any(1).argmax())
        raise DataError(
            "A logit is not a number.", where=f"text {row}", do="Look for a training that diverged."
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= logits.shape[1]))
    if len(wrong):
        raise DataError(
            f"Label {labels[wrong[0]]} is none of the {logits.shape[1]} classes (0, 1, …).",
            where=f"text {wrong[0]}",
            do="Score a text only where its label is a class of the model.",
        )
