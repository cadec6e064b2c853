"""Writes the tables of the instructor's guide, slides/README.md, from what was measured.

python tools/update_guide.py
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from blocks import with_block
from lessons import Session, chapters, measured, sessions

from course_utils.errors import CourseError
from course_utils.files import write_text
from course_utils.machine import PROFILES

ROOT = Path(__file__).resolve().parents[1]
GUIDE = Path("slides/README.md")


def guide(root: Path) -> str:
    """The guide with all its tables made anew."""
    page = (root / GUIDE).read_text(encoding="utf-8")
    listed = sessions(root)
    blocks = {"chapters": chapter_table(root), "hardware": hardware_table(root)}
    for plan in dict.fromkeys(session.plan for session in listed):
        blocks[f"plan {plan}"] = plan_tables([s for s in listed if s.plan == plan])
    for name, block in blocks.items():
        page = with_block(page, name, block, where=str(GUIDE))
    return page


def plan_tables(listed: Sequence[Session]) -> str:
    """A table for every session of a plan: at what time, what, how long."""
    return "\n".join(_session_table(session) for session in listed)


def _session_table(session: Session) -> str:
    begins = accumulate((step.minutes for step in session.steps), initial=0)
    rows = [
        (_clock(begin), step.what, str(step.minutes))
        for begin, step in zip(begins, session.steps, strict=False)
    ]
    rows.append(
        (_clock(session.minutes), f"the end, of {session.limit} minutes", str(session.minutes))
    )
    lines = [f"**{session.title}**", "", _table(("at", "what", "minutes"), rows, numbers=1)]
    if session.home:
        lines += [
            f"At home: {'; '.join(f'{s.what}, {s.minutes} minutes' for s in session.home)}.",
            "",
        ]
    return "\n".join(lines)


def chapter_table(root: Path) -> str:
    """What each chapter is for, what it needs, and its minutes."""
    written = tomllib.loads((root / "slides/plans.toml").read_text(encoding="utf-8"))["chapters"]
    rows = [
        (
            f"{chapter.number} {chapter.title}",
            written[chapter.number]["goal"],
            written[chapter.number]["needs"],
            *map(str, (chapter.talk, chapter.read, chapter.compute)),
            f"{sum(chapter.exercises.values())} ({len(chapter.exercises)})",
        )
        for chapter in chapters(root).values()
    ]
    head = ("chapter", "afterwards a learner can", "needs")
    return _table((*head, "talk", "read", "compute", "exercises"), rows, numbers=4)


def hardware_table(root: Path) -> str:
    """Seconds and memory of every notebook in every profile that was measured."""
    results = measured(root)
    profiles = [p for p in PROFILES if all(p in runs for runs in results.values())]
    head = [f"{p}: {what}" for p in profiles for what in ("seconds", "GB of memory")]
    rows = [
        (
            name.partition("_")[0],
            *(
                text
                for p in profiles
                for text in (str(runs[p]["seconds"]), f"{runs[p]['peak_mb'] / 1000:.1f}")
            ),
        )
        for name, runs in sorted(results.items())
    ]
    machines = sorted({runs[p]["machine"] for runs in results.values() for p in profiles})
    dates = [runs[p]["date"] for runs in results.values() for p in profiles]
    where = f"Measured from {min(dates)} to {max(dates)} on: {'; '.join(machines)}."
    return f"{_table(('notebook', *head), rows, numbers=len(head))}\n{where}\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int) -> str:
    """A table in Markdown; the last `numbers` columns stand to the right."""
    rule = ["---"] * (len(head) - numbers) + ["---:"] * numbers
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *rows))


def _clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02}"


def main(root: Path = ROOT) -> int:
    """The exit code: 0, or 1 with words when a plan does not work out."""
    try:
        write_text(root / GUIDE, guide(root))
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
