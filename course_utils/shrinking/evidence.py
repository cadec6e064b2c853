"""What a student lost and gained, on texts nobody has trained on or chosen by; and odd labels."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from course_utils.data.encoding import label_tensor
from course_utils.data.safe_csv import safe_cell
from course_utils.data.tasks import Task
from course_utils.measure import report
from course_utils.measure.by_class import by_class
from course_utils.measure.in_one_run import Entry, in_one_run
from course_utils.models.classifier import TorchClassifier
from course_utils.ship.runtime import OnnxClassifier

CONFIDENT = 0.9


@dataclass(frozen=True)
class Suspect:
    """A training text whose label its teacher, though trained on it, firmly contradicts."""

    row: int  # in the training split, from 1
    text: str
    label: str
    teacher: str
    probability: float


def split_labels(split: Dataset, task: Task) -> np.ndarray:
    """The split's labels as numbers: (N,), or in a multi-label task (N, C) of 0 and 1."""
    return label_tensor(split["label"][:], len(task.labels), task.multi_label).numpy()


def is_right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which texts are right, (N,) bool; in a multi-label task the whole set has to be."""
    if labels.ndim == 2:
        return ((logits > 0) == (labels > 0)).all(1)
    return logits.argmax(1) == labels


def measured(
    teacher: Path,
    students: Sequence[Path],
    shipped: Path,
    chosen: int,
    task: Task,
    *,
    n_timed: int,
    progress: bool = True,
) -> dict[str, Any]:
    """The rows of the report, accuracy over the seeds and by class; all of it on the test split.

    `students` are one seed each, `chosen` the position of the one that was exported to `shipped`.
    """
    texts, labels = task.test["text"][:], split_labels(task.test, task)
    entries = [
        Entry("teacher", teacher, TorchClassifier),
        Entry("student", students[chosen], TorchClassifier),
        Entry("student, int8", shipped, OnnxClassifier),
    ]
    rows, logits = in_one_run(entries, texts, labels, n_timed=n_timed, progress=progress)
    seeds = [
        rows[1]["accuracy"]
        if k == chosen
        else float(is_right(TorchClassifier(student).predict(texts), labels).mean())
        for k, student in enumerate(students)
    ]
    return {
        "rows": report.rows(rows),
        "micro_f1": [row["micro_f1"] for row in rows if "micro_f1" in row],
        "seeds": {"mean": float(np.mean(seeds)), "least": min(seeds), "most": max(seeds)},
        "by_class": by_class(logits[2], labels, task.labels),
    }


def suspects(teacher_logits: np.ndarray, task: Task) -> list[Suspect]:
    """Training texts with a label that their teacher contradicts at 90 % or more, surest first.

    `teacher_logits` (N, C) are those of the N training texts.
    """
    found = _against_sets if task.multi_label else _against_labels
    texts = task.train["text"][:]
    odd = [
        Suspect(row + 1, texts[row], label, teacher, float(probability))
        for row, label, teacher, probability in found(teacher_logits, task)
    ]
    return sorted(odd, key=lambda suspect: -suspect.probability)


def as_csv(odd: Sequence[Suspect]) -> str:
    """The table of suspects.csv, which no spreadsheet takes for formulas."""
    table = io.StringIO()
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(["row", "text", "label", "teacher", "probability"])
    for s in odd:
        cells = map(safe_cell, (s.text, s.label, s.teacher))
        lines.writerow([s.row, *cells, f"{s.probability:.3f}"])
    return table.getvalue()


def _against_labels(logits: np.ndarray, task: Task) -> Iterator[tuple[int, str, str, float]]:
    labels, chosen = split_labels(task.train, task), logits.argmax(1)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    sure = (powers / powers.sum(1, keepdims=True)).max(1)
    for row in np.flatnonzero((chosen != labels) & (sure >= CONFIDENT)):
        yield row, task.labels[labels[row]], task.labels[chosen[row]], sure[row]


def _against_sets(logits: np.ndarray, task: Task) -> Iterator[tuple[int, str, str, float]]:
    """One label too many or too few is enough; the probability is that of the surest of them."""
    labels, chosen = split_labels(task.train, task) > 0, logits > 0
    sure = np.where(labels != chosen, 1 / (1 + np.exp(-np.abs(logits))), 0).max(1)
    for row in np.flatnonzero(sure >= CONFIDENT):
        yield row, _names(labels[row], task), _names(chosen[row], task), sure[row]


def _names(chosen: np.ndarray, task: Task) -> str:
    return ", ".join(task.labels[k] for k in np.flatnonzero(chosen)) or "none"
