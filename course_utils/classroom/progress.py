"""Progress: which exercises are solved, in one small file on this computer."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

from course_utils.errors import CourseError
from course_utils.files import write_text


def progress() -> None:
    """Nothing; prints how many exercises of each notebook are solved, and which are."""
    from course_utils.classroom.checks import exercises  # which imports this module

    by_notebook = defaultdict(list)
    for exercise in exercises().values():
        by_notebook[exercise.notebook].append(exercise.name)
    solved = {name for name, state in _read().items() if state == "right"}
    print("notebook  solved")
    for notebook, names in by_notebook.items():
        marks = "  ".join(f"{'✓' if name in solved else '○'} {name}" for name in names)
        print(f"{notebook:<8}  {len(solved.intersection(names))}/{len(names)}     {marks}")
    print(f"all       {len(solved & exercises().keys())}/{len(exercises())}")


def record(name: str, right: bool) -> None:
    """Nothing; notes an attempt. An exercise once solved stays solved."""
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
    """The states by exercise; none when the file is missing, torn or not ours to read."""
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
