"""Whether a classifier is right as often as it says it is, and how to bring the two together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from course_utils.errors import DataError

RESAMPLES = 2000
LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.05, 20.0


@dataclass(frozen=True)
class Bin:
    """The texts whose top probability is above `low` and at most `high`; there is at least one."""

    low: float
    high: float
    n: int
    confidence: float  # the mean of their top probabilities
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """The reliability figure as numbers, and the expected calibration error it is summed up in."""

    bins: tuple[Bin, ...]  # those that hold a text, from the least confident on
    ece: float
    ece_low: float
    ece_high: float
    ece_by_chance: float  # calibrated models as confident as this one stay below in 95 of 100 draws

    def as_dict(self) -> dict[str, object]:
        """The fields by name, ready for JSON."""
        return asdict(self) | {"bins": [asdict(one) for one in self.bins]}


def calibration(
    probs: np.ndarray, labels: Sequence[int] | np.ndarray, n_bins: int = 15, *, seed: int = 0
) -> Calibration:
    """Bins of equal width over the top probability, and the ECE: Guo et al. 2017, equation 3.

    `probs` are (N, C), `labels` (N,) from 0 to C - 1. The ECE is a mean of absolute values: chance
    alone puts it above 0, in every resample of the texts once more. So the 95 % interval is the
    basic bootstrap (Davison and Hinkley 1997, section 5.2), which takes that off again, and not the
    percentile one; and an ECE below `ece_by_chance` does not show that the model is miscalibrated.
    Raises `DataError` for probabilities that are none, labels that are no class, or no text.
    """
    probs, labels = np.asarray(probs, np.float64), np.asarray(labels)
    _need_probs(probs)
    need_labels(labels, *probs.shape)
    if n_bins < 1:
        raise DataError(f"There cannot be {n_bins} bins.", do="Take 1 or more; 15 is usual.")
    confidence, right = probs.max(1), probs.argmax(1) == labels  # (N,)
    edges = np.linspace(0, 1, n_bins + 1)
    places = np.searchsorted(edges[1:-1], confidence)  # (N,), an edge belongs to the bin below it
    ece = _ece(right - confidence, places)
    low, high, by_chance = _bounds(confidence, right, places, ece, np.random.default_rng(seed))
    return Calibration(
        bins=tuple(
            Bin(
                low=float(edges[place]),
                high=float(edges[place + 1]),
                n=int((inside := places == place).sum()),
                confidence=float(confidence[inside].mean()),
                accuracy=float(right[inside].mean()),
            )
            for place in np.unique(places)
        ),
        ece=ece,
        ece_low=low,
        ece_high=high,
        ece_by_chance=by_chance,
    )


def fitted_temperature(logits: np.ndarray, labels: Sequence[int] | np.ndarray) -> float:
    """The T that gives softmax(logits / T) the least cross-entropy: Guo et al. 2017, section 4.2.

    `logits` are (N, C), `labels` (N,), of texts the model was not trained on and that are not the
    test set. A T above 1 says that the model was too sure of itself. It never changes which class
    is chosen. T is sought from 0.05 to 20; a model that is always right gets 0.05. Raises
    `DataError` for logits that are not finite, labels that are no class, or no text.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if logits.ndim != 2 or not np.isfinite(logits).all():
        raise DataError(
            f"Logits {logits.shape} are not finite numbers of shape (texts, classes).",
            do="Give what the model computed for each text, before any softmax.",
        )
    need_labels(labels, *logits.shape)
    logits = logits - logits[np.arange(len(labels)), labels][:, None]  # (N, C), 0 at the label
    # In 1/T the cross-entropy is convex: there is one minimum, or it lies at an end.
    found = minimize_scalar(
        lambda inverse: logsumexp(inverse * logits, axis=1).mean(),
        bounds=(1 / MOST_TEMPERATURE, 1 / LEAST_TEMPERATURE),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.clip(1 / found.x, LEAST_TEMPERATURE, MOST_TEMPERATURE))


def need_labels(labels: np.ndarray, n_texts: int, n_classes: int) -> None:
    """Nothing; raises `DataError` unless there is a text, and each has a label 0 … C - 1."""
    if labels.shape != (n_texts,) or not n_texts:
        raise DataError(
            f"There are {n_texts} texts; labels are {labels.shape}.",
            do="Give at least one text, and one class number for each.",
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= n_classes))
    if len(wrong):
        raise DataError(
            f"Label {labels[wrong[0]]} is none of the {n_classes} classes (0, 1, …).",
            where=f"text {wrong[0]}",
            do="Leave out the texts without a label.",
        )


def _need_probs(probs: np.ndarray) -> None:
    if probs.ndim != 2 or not (
        np.allclose(probs.sum(1), 1, atol=1e-3) and (probs >= 0).all()
    ):  # NaN fails, too
        raise DataError(
            f"Probabilities {probs.shape} are not rows of (texts, classes) that add up to 1.",
            do="Give the softmax of the logits over the classes.",
        )


def _ece(gaps: np.ndarray, places: np.ndarray) -> float:
    """The ECE of N texts; `gaps` are right (0 or 1) less confidence, (N,)."""
    return float(np.abs(np.bincount(places, gaps)).sum() / len(gaps))


def _bounds(
    confidence: np.ndarray,
    right: np.ndarray,
    places: np.ndarray,
    ece: float,
    generator: np.random.Generator,
) -> tuple[float, float, float]:
    """Low and high of the ECE, and what a calibrated model's stays below in 95 of 100 draws."""
    n, gaps = len(right), right - confidence
    resampled, by_chance = [], []
    for _ in range(RESAMPLES):
        drawn = generator.integers(n, size=n)
        resampled.append(_ece(gaps[drawn], places[drawn]))
        by_chance.append(_ece((generator.random(n) < confidence) - confidence, places))
    low, high = np.percentile(resampled, [2.5, 97.5])
    return max(0.0, 2 * ece - high), max(ece, 2 * ece - low), float(np.percentile(by_chance, 95))
