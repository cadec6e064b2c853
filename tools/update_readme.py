"""Writes the README's results, table and figure, from a report that `course run` has measured.

python tools/update_readme.py build/report
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

from course_utils.errors import CourseError
from course_utils.files import write_text

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", flags=re.DOTALL)
COLUMNS = (
    ("model", "{name}"),
    ("size, MB", "{size_mb:.1f}"),
    ("one text, ms", "{latency_ms_p50:.1f}"),
    ("times as fast", "{speedup_batch1:.1f}"),
    ("accuracy, %", "{accuracy:.1%}"),
    ("of the teacher's, %", "{retention:.1%}"),
)


def results(report: Path) -> str:
    """The table and its caption in Markdown, from the report's results.json."""
    measured = json.loads((report / "results.json").read_text(encoding="utf-8"))
    machine, task, rows = measured["machine"], measured["task"], measured["rows"]
    lines = [[name for name, _ in COLUMNS], ["---"] + ["---:"] * (len(COLUMNS) - 1)]
    lines += [[form.format_map(row).replace("%", "") for _, form in COLUMNS] for row in rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"{table}\n\n![Accuracy against size on disk for the teacher, the student and their 8-bit "
        f"versions](docs/results.png)\n\n"
        f"Measured by `course run --data {task['name']}` in one run on {machine['cpu']}, "
        f"{machine['threads']} threads: {len(task['labels'])} classes, {task['train']:,} texts to "
        f"train on, {task['test']:,} to test. Your numbers will differ; compare the ratios.\n"
    )


def main(report: Path) -> None:
    """Replace what stands between the two markers of the README, and the figure."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if not BLOCK.search(readme):
        raise CourseError("The README has lost its markers <!-- results -->.", where="README.md")
    block = results(report)
    write_text(ROOT / "README.md", BLOCK.sub(lambda found: found[1] + block + found[2], readme))
    (ROOT / "docs").mkdir(exist_ok=True)
    shutil.copyfile(report / "pareto.png", ROOT / "docs" / "results.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
