"""Where a classifier is good and where it is not: class by class, and by the length of the text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from course_utils.errors import DataError
from course_utils.measure.accuracy import bootstrap
from course_utils.measure.calibration import need_labels


def by_class(
    logits: np.ndarray, labels: Sequence[int] | np.ndarray, names: Sequence[str]
) -> list[dict[str, str | int | float]]:
    """For each class `name`, `n` (texts that have it), `precision`, `recall` and `f1`.

    `logits` are (N, C), `names` those of the C classes. `labels` are (N,), class numbers; or, where
    a text may have several, (N, C), 0 and 1, and a class is predicted when its logit is above 0. A
    share of nothing is 0: the precision of a class that is never predicted, the recall of one that
    no text has. Raises `DataError` when shapes differ, a label is no class, or there is no text.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    if logits.ndim != 2 or logits.shape[1] != len(names):
        raise DataError(
            f"Logits are {logits.shape}; there are {len(names)} names of classes.",
            do="Give logits of shape (texts, classes), and a name for each class.",
        )
    if labels.ndim == 2:
        _need_several(labels, logits)
        predicted = (logits > 0).astype(int)  # (N, C)
    else:
        need_labels(labels, *logits.shape)
        predicted = logits.argmax(1)  # (N,)
    found = precision_recall_fscore_support(
        labels, predicted, labels=range(len(names)), average=None, zero_division=0
    )
    return [
        {"name": name, "n": int(n), "precision": float(p), "recall": float(r), "f1": float(f1)}
        for name, p, r, f1, n in zip(names, *found, strict=True)
    ]


def by_length(
    lengths: Sequence[int] | np.ndarray,
    right: Sequence[bool] | np.ndarray,
    n_bins: int = 4,
    *,
    seed: int = 0,
) -> list[dict[str, int | float]]:
    """From the shortest texts on `shortest`, `longest`, `n`, `accuracy` and its low and high.

    `lengths` (N,) are whole numbers, tokens say; `right` (N,) tells which texts were classified
    rightly. The bins hold about equally many texts; equal lengths share a bin, so that there may be
    fewer bins than `n_bins`. Low and high are the 95 % bootstrap of `measure.accuracy`. Raises
    `DataError` when there is no text or not one answer for each.
    """
    lengths, right = np.asarray(lengths), np.asarray(right, bool)
    if not len(lengths) or lengths.ndim != 1 or lengths.shape != right.shape or n_bins < 1:
        raise DataError(
            f"{n_bins} bins of lengths {lengths.shape} and answers {right.shape} cannot be made.",
            do="Give a length and whether it was right for each text, and 1 bin or more.",
        )
    edges = np.quantile(lengths, np.arange(1, n_bins) / n_bins)
    places = np.searchsorted(edges, lengths)  # (N,), an edge belongs to the bin below it
    rows = []
    for place in np.unique(places):
        inside = places == place
        accuracy = float(right[inside].mean())
        low, high = bootstrap(accuracy, int(inside.sum()), seed=seed)
        rows.append(
            {
                "shortest": int(lengths[inside].min()),
                "longest": int(lengths[inside].max()),
                "n": int(inside.sum()),
                "accuracy": accuracy,
                "accuracy_low": low,
                "accuracy_high": high,
            }
        )
    return rows


def _need_several(labels: np.ndarray, logits: np.ndarray) -> None:
    if labels.shape != logits.shape or not len(labels) or not np.isin(labels, (0, 1)).all():
        raise DataError(
            f"Logits are {logits.shape}, labels {labels.shape}, and labels must be 0 or 1.",
            do="Leave out the texts without labels; give at least one that has some.",
        )
