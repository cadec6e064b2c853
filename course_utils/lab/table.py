"""What every model of the lab costs and is worth, measured in one run; and the table in words."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from course_utils import machine, pipeline
from course_utils.data.tasks import Task
from course_utils.lab.operations import parse
from course_utils.measure import report
from course_utils.measure.accuracy import over_seeds_and_texts
from course_utils.measure.in_one_run import Entry, in_one_run
from course_utils.models.classifier import as_stored
from course_utils.ship.runtime import OnnxClassifier

Rows = list[dict[str, Any]]

COLUMNS = {  # a column's header and how its cell is written
    "pipeline": "{name}",
    "MB": "{size_mb:.1f}",
    "smaller": "{size_ratio:.1f}×",
    "ms": "{latency_ms_p50:.2f}",
    "faster": "{speedup_batch1:.1f}×",
    "by 32": "{speedup_batch32:.1f}×",
    "right, %": "{accuracy:.1%} ({accuracy_low:.1%}–{accuracy_high:.1%})",
}


def measured(folders: Mapping[str, Path], task: Task, *, progress: bool) -> tuple[Rows, Rows]:
    """The rows of the table, the teacher's first, and the differences between models.

    `folders` has a classifier folder for every name. All are timed in turns. A difference has
    `name` and `than`, two models, and by how many `points` the first is right more often than the
    second, with the `half_width` of its 95 % interval over texts: each model minus the teacher,
    and every two that had the same operations in another order.
    """
    texts, labels = task.test["text"][:], task.test["label"][:]
    entries = [
        Entry(name, folder, OnnxClassifier if (folder / "model.onnx").is_file() else as_stored)
        for name, folder in folders.items()
    ]
    n_timed = pipeline.TIMED_TEXTS[machine.profile()]
    rows, logits = in_one_run(entries, texts, labels, n_timed=n_timed, progress=progress)
    right = {
        name: 100.0 * (each.argmax(1) == labels) for name, each in zip(folders, logits, strict=True)
    }
    return report.rows(rows), differences(right)


def differences(right: Mapping[str, np.ndarray]) -> Rows:
    """See `measured`; `right` has 100 for a text that a model gets right, else 0, (N,) each."""
    teacher, *names = right
    pairs = [(name, teacher) for name in names]
    pairs += [pair for pair in combinations(names, 2) if _same_in_another_order(*pair)]
    found = []
    for name, than in pairs:
        points, half_width = over_seeds_and_texts(right[name] - right[than])
        found.append({"name": name, "than": than, "points": points, "half_width": half_width})
    return found


def as_table(results: Mapping[str, Any]) -> Table:
    """The table for a terminal (rich), a line for every pipeline, the largest model first.

    `smaller` and `faster` are ratios to the teacher: for one text at a time, and in batches of 32.
    The last column is by how many points a model is right more often than the teacher.
    """
    lost = {d["name"]: d for d in results["differences"] if d["than"] == "teacher"}
    table = Table(*COLUMNS, "points", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in table.columns[1:]:  # where there is little room, the pipeline is wrapped
        column.no_wrap, column.justify = True, "right"
    for row in sorted(results["rows"], key=lambda row: -row["size_mb"]):
        cells = [form.format_map(row).replace("%", "") for form in COLUMNS.values()]
        one = lost.get(row["name"])
        table.add_row(*cells, f"{one['points']:+.1f} ± {one['half_width']:.1f}" if one else "")
    return table


def _same_in_another_order(one: str, other: str) -> bool:
    one, other = parse(one), parse(other)
    return one != other and sorted(map(str, one)) == sorted(map(str, other))
