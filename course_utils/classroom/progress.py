"""Progress: which exercises and questions are solved, in one small file on this computer."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

from course_utils.errors import CourseError
from course_utils.files import write_text


def progress() -> None:
    """Nothing; prints which exercises and quiz questions of each notebook are solved."""
    from course_utils.classroom.checks import exercises  # both import this module
    from course_utils.classroom.quiz import questions

    rows = defaultdict(dict)  # per line of the table: the name of each task and its key in the file
    for exercise in exercises().values():
        rows[exercise.notebook][exercise.name] = exercise.name
    for notebook, group in questions().items():
        rows[f"{notebook} quiz"] = {question.name: question.key for question in group.values()}
    solved = {key for key, state in _read().items() if state == "right"}
    print("notebook  solved")
    for label, tasks in sorted(rows.items()):
        marks = "  ".join(f"{'✓' if key in solved else '○'} {name}" for name, key in tasks.items())
        print(f"{label:<8}  {len(solved.intersection(tasks.values()))}/{len(tasks)}     {marks}")
    keys = {key for tasks in rows.values() for key in tasks.values()}
    print(f"all       {len(solved & keys)}/{len(keys)}")


def record(name: str, right: bool) -> None:
    """Nothing; notes an attempt at an exercise or a question. Once solved, it stays solved."""
    states = _read()
    if states.get(name) == "right":
        return
    states[name] = "right" if right else "tried"
    try:
        write_text(_file(), json.dumps(states, indent=1) + "\n")
    except (CourseError, OSError) as error:
        _say_once(error)


def _file() -> Path:
    """`COURSE_PROGRESS`, which keeps tests out of a learner's file, or one in the cache."""
    from course_utils.machine import cache_dir

    named = os.environ.get("COURSE_PROGRESS")
    return Path(named) if named else cache_dir() / "progress.json"


def _read() -> dict[str, str]:
    """The states by name; none when the file is missing, torn or not ours to read."""
    try:
        states = json.loads(_file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (CourseError, OSError, ValueError) as error:
        _say_once(error)
        return {}
    return states if isinstance(states, dict) else {}


_said: list[str] = []


def _say_once(error: Exception) -> None:
    """Prints one line in the life of a kernel: a broken file must not fill a notebook."""
    if not _said:
        _said.append((str(error).splitlines() or [type(error).__name__])[0])
        print(f"(Your saved progress could not be used: {_said[0]} The checks work without it.)")
