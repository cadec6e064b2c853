"""Writes the README's tables: from a report of `course run`, and from the lab's reference runs.

python tools/update_readme.py build/report
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blocks import with_block

from course_utils.classroom.lab_figures import front
from course_utils.files import write_text
from course_utils.lab.reference import reference

ROOT = Path(__file__).resolve().parents[1]
LABS = ("pydocs", "sst2")
COLUMNS = (
    ("model", "{name}"),
    ("size, MB", "{size_mb:.1f}"),
    ("one text, ms", "{latency_ms_p50:.1f}"),
    ("times as fast", "{speedup_batch1:.1f}"),
    ("accuracy, %", "{accuracy:.1%}"),
    ("of the teacher's, %", "{retention:.1%}"),
)
LAB_COLUMNS = (
    ("pipeline", "{name}"),
    ("size, MB", "{size_mb:.1f}"),
    ("times as small", "{size_ratio:.1f}"),
    ("times as fast, one text", "{speedup_batch1:.1f}"),
    ("by 32", "{speedup_batch32:.1f}"),
    ("accuracy, %", "{accuracy:.1%}"),
    ("of the teacher's, %", "{retention:.1%}"),
)


def results(report: Path) -> str:
    """The table and its caption in Markdown, from the report's results.json."""
    measured = json.loads((report / "results.json").read_text(encoding="utf-8"))
    machine, task, rows = measured["machine"], measured["task"], measured["rows"]
    return (
        f"{_table(COLUMNS, rows)}\n\n![Accuracy against size on disk for the teacher, the "
        f"student and their 8-bit versions](docs/results.png)\n\n"
        f"Measured by `course run --data {task['name']}` in one run on {machine['cpu']}, "
        f"{machine['threads']} threads: {len(task['labels'])} classes, {task['train']:,} texts to "
        f"train on, {task['test']:,} to test. Your numbers will differ; compare the ratios.\n"
    )


def lab(name: str) -> str:
    """What no other pipeline of the lab beats in size and accuracy, largest first, in Markdown."""
    measured = reference(name)
    machine, task = measured["machine"], measured["task"]
    return (
        f"{_table(LAB_COLUMNS, front(measured['rows'])[::-1])}\n\n"
        f"Measured by `course run --lab --data {name}` in one run on {machine['cpu']}, "
        f"{machine['threads']} threads, {task['test']:,} texts to test: what no other of its "
        f"{len(measured['rows']) - 1} pipelines beats in both size and accuracy. The teacher has "
        f"{measured['rows'][0]['size_mb']:.1f} MB.\n"
    )


def main(report: Path) -> None:
    """Replace what stands between the markers of the README, and the figure."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = {"results": results(report)} | {f"lab {name}": lab(name) for name in LABS}
    for name, block in blocks.items():
        readme = with_block(readme, name, block, where="README.md")
    write_text(ROOT / "README.md", readme)
    (ROOT / "docs").mkdir(exist_ok=True)
    shutil.copyfile(report / "pareto.png", ROOT / "docs" / "results.png")


def _table(columns: Sequence[tuple[str, str]], rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [[name for name, _ in columns], ["---"] + ["---:"] * (len(columns) - 1)]
    lines += [[form.format_map(row).replace("%", "") for _, form in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
