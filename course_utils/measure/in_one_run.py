"""What several classifier folders cost and are worth, all of it measured in one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from course_utils.measure.accuracy import score
from course_utils.measure.size import parameters, peak_memory_mb, size_mb
from course_utils.measure.speed import speed
from course_utils.models.protocol import Classifier


class Entry(NamedTuple):
    """A line of a table: its name, the model's folder, and the class or function that loads it."""

    name: str
    folder: Path
    load: Callable[..., Classifier]


def in_one_run(
    entries: Sequence[Entry],
    texts: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    *,
    n_timed: int,
    progress: bool = True,
) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """What `report.rows` needs of each model, and its logits (N, C) for all the texts.

    The first entry is the teacher, with whose classes the others' are compared. All are timed in
    turns, on the first `n_timed` texts. Raises what `score` and `speed` raise.
    """
    models = [entry.load(entry.folder, name=entry.name) for entry in entries]
    logits = [
        model.predict(texts)
        for model in tqdm(models, "accuracy", unit="model", disable=not progress)
    ]
    timed = texts[:n_timed]
    rows = speed(models, timed, progress=progress)
    del models  # memory is measured in new processes, which need room
    for entry, row, each in zip(
        tqdm(entries, "memory", unit="model", disable=not progress), rows, logits, strict=True
    ):
        row |= score(each, labels, teacher_logits=logits[0])
        row["params"], row["size_mb"] = parameters(entry.folder), size_mb(entry.folder)
        row["peak_memory_mb"] = peak_memory_mb(entry.load, entry.folder, timed)
    return rows, logits
