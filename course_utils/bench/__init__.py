"""`course bench`: our way and the obvious way, measured in one run on this machine.

Each way runs in a process of its own, so that its peak memory is its own; the ratio is what counts.
A benchmark is a module here: `WAYS` are the names of its ways, `measure(way)` runs one in the
process made for it, and `rows(measured)` compares what all of them returned.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from course_utils.errors import CourseError
from course_utils.files import check_writable, write_text

BENCHMARKS = ("distill", "loss", "mlm")


def bench(what: str, *, json_file: Path | None = None) -> list[dict]:
    """The rows of one benchmark, see `rows` of its module.

    Prints them as a table and, if asked to, writes them as JSON. Raises `CourseError` for a piece
    of work there is no benchmark for, and when the process of a way fails.
    """
    if what not in BENCHMARKS:
        raise CourseError(
            f"There is no benchmark {what!r}.", do=f"Choose: {' or '.join(BENCHMARKS)}."
        )
    if json_file is not None:
        check_writable(json_file.parent)
    benchmark = importlib.import_module(f"{__name__}.{what}")
    rows = benchmark.rows({way: _in_own_process(what, way) for way in benchmark.WAYS})
    table = Table(title="Ours against the obvious way, one run on this machine")
    for column in rows[0]:
        table.add_column(column.replace("_", " "))
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    if json_file is not None:
        write_text(json_file, json.dumps(rows, indent=2) + "\n")
    return rows


def _in_own_process(what: str, way: str) -> dict:
    print(f"measuring: {way}")
    command = [sys.executable, "-m", __name__, what, way]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise CourseError(f"The benchmark's process for {way!r} ended with {done.returncode}.")
    return json.loads(done.stdout.splitlines()[-1])
