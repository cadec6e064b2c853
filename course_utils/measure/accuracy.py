"""How often a classifier is right, how sure we are of that number, and how it agrees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import t
from sklearn.metrics import f1_score

from course_utils.errors import DataError

RESAMPLES = 2000


def score(
    logits: np.ndarray,
    labels: Sequence[int] | Sequence[Sequence[int]] | np.ndarray,
    *,
    teacher_logits: np.ndarray | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """`accuracy`, `accuracy_low`, `accuracy_high`, `macro_f1` and, with a teacher, `agreement`.

    `logits` and `teacher_logits` are (N, C), `labels` (N,) from 0 to C - 1. Low and high are the
    95 % percentile bootstrap (Efron 1979) over 2000 resamples of the N texts. Macro-F1 is the mean
    over the classes that occur; agreement the share of texts put in the teacher's class.

    Where a text may have several classes, `labels` are (N, C), 0 and 1, and a model says yes to
    those with a logit above 0. Then a text is right, and agrees, if all its classes do; `micro_f1`
    is that of all N · C answers together. Raises `DataError` when shapes differ, there is no text,
    a logit is NaN or a label has no logit.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    _check(logits, labels)
    several = labels.ndim == 2
    predicted = _answers(logits, several)
    accuracy = float(np.mean((predicted == labels.reshape(len(labels), -1)).all(1)))
    low, high = bootstrap(accuracy, len(labels), seed=seed)
    scores = {"accuracy": accuracy, "accuracy_low": low, "accuracy_high": high}
    if several:
        scores |= _binary_f1(labels.astype(bool), predicted)
    else:
        scores["macro_f1"] = float(f1_score(labels, predicted[:, 0], average="macro"))
    if teacher_logits is not None:
        teacher_logits = np.asarray(teacher_logits)
        if teacher_logits.shape != logits.shape:
            raise DataError(
                f"Logits are {logits.shape}, the teacher's {teacher_logits.shape}.",
                do="Compute both on the same texts, for the same classes.",
            )
        same = (predicted == _answers(teacher_logits, several)).all(1)
        scores["agreement"] = float(np.mean(same))
    return scores


def bootstrap(share: float, n: int, *, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval, low and high, of a share measured on `n` texts."""
    # Drawing n texts with replacement, of which this share is right, and counting the right ones
    # is one draw from a binomial distribution: 2000 numbers stand for 2000 resamples.
    resampled = np.random.default_rng(seed).binomial(n, share, RESAMPLES) / n
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)


def over_seeds_and_texts(values: np.ndarray) -> tuple[float, float]:
    """The mean of `values`, (S, N) for S seeds on N texts, and half of its 95 % interval.

    What other seeds and what other texts would change both count: the variance of the mean is that
    of the seeds' means over S plus that of the texts' means over N, with degrees of freedom after
    Satterthwaite 1946. For a comparison give differences, seed by seed and text by text: how hard a
    text is then plays no part. One seed says nothing of seeds: then the texts alone count. Raises
    `DataError` for fewer than two texts.
    """
    values = np.atleast_2d(np.asarray(values, float))
    n_seeds, n_texts = values.shape
    if n_texts < 2:
        raise DataError("An interval needs two texts.", do="Give a row of values for each seed.")
    of_texts = values.mean(0).var(ddof=1) / n_texts
    of_seeds = values.mean(1).var(ddof=1) / n_seeds if n_seeds > 1 else 0.0
    variance = of_texts + of_seeds
    if not variance:
        return float(values.mean()), 0.0
    lost = of_texts**2 / (n_texts - 1) + of_seeds**2 / max(1, n_seeds - 1)
    freedom = variance**2 / lost
    return float(values.mean()), float(t.ppf(0.975, freedom) * np.sqrt(variance))


def _answers(logits: np.ndarray, several: bool) -> np.ndarray:
    """What the model says: yes or no to each class, (N, C), or the number of one class, (N, 1)."""
    return logits > 0 if several else logits.argmax(1, keepdims=True)


def _binary_f1(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Macro- and micro-F1 of yes and no, both (N, C); 1 where there is no yes, and none is said."""
    hits = 2 * (labels & predicted).sum(0)  # (C,)
    all_yes = labels.sum(0) + predicted.sum(0)
    occurs = all_yes > 0
    if not occurs.any():
        return {"macro_f1": 1.0, "micro_f1": 1.0}
    macro, micro = (hits[occurs] / all_yes[occurs]).mean(), hits.sum() / all_yes.sum()
    return {"macro_f1": float(macro), "micro_f1": float(micro)}


def _check(logits: np.ndarray, labels: np.ndarray) -> None:
    if logits.ndim != 2 or labels.shape not in {logits.shape, logits.shape[:1]}:
        raise DataError(
            f"Logits are {logits.shape}, labels {labels.shape}.",
            do="Give logits of shape (texts, classes) and one label for each text, or one row of "
            "0 and 1 for its classes.",
        )
    if not len(labels):
        raise DataError("There is no text to score.", do="Give at least one text and its label.")
    if np.isnan(logits).any():
        row = int(np.isnan(logits).any(1).argmax())
        raise DataError(
            "A logit is not a number.", where=f"text {row}", do="Look for a training that diverged."
        )
    if labels.ndim == 2:
        wrong = np.argwhere((labels != 0) & (labels != 1))
        if len(wrong):
            row, column = wrong[0]
            raise DataError(
                f"A label is {labels[row, column]:g}, neither 0 nor 1.",
                where=f"text {row}, class {column}",
                do="Score a text only where it has its labels.",
            )
        return
    wrong = np.flatnonzero((labels < 0) | (labels >= logits.shape[1]))
    if len(wrong):
        raise DataError(
            f"Label {labels[wrong[0]]} is none of the {logits.shape[1]} classes (0, 1, …).",
            where=f"text {wrong[0]}",
            do="Score a text only where its label is a class of the model.",
        )
