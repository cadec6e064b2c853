"""What a learner has solved, in one small file that no notebook and no older course spoils.

    {"version": 2, "states": {"agreement": "right", "quiz.why_not_half": "tried"}}

Version 1 was the states alone. Several notebooks may write at once: a lock lies beside the file.
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

from filelock import FileLock

from course_utils.errors import CourseError
from course_utils.files import check_writable, write_text

VERSION = 2
PATIENCE = 5.0  # seconds; another notebook needs milliseconds
FAULTS = (CourseError, OSError, RuntimeError)  # the last: a disk without locks, a ~ of nobody


class Unusable(CourseError):
    """A progress file that is there, and that this course cannot read."""


def record(name: str, right: bool) -> None:
    """Nothing; notes an attempt at an exercise or a question. Once solved, it stays solved.

    What goes wrong is said in one line, once: no check fails for want of a file.
    """
    try:
        file = _file()
        check_writable(file.parent)
        with FileLock(f"{file}.lock", timeout=PATIENCE):
            states = _read_or_begin_anew(file)
            if states.get(name) == "right":
                return
            states[name] = "right" if right else "tried"
            write_text(file, json.dumps({"version": VERSION, "states": states}, indent=1) + "\n")
    except FAULTS as error:
        _say_once(f"{_first_line(error)} The checks work without it.")


def states() -> dict[str, str]:
    """The states, "right" or "tried", by name; none when there is no file that can be read.

    Why it cannot be read is said in one line, once; the file stays as it is.
    """
    try:
        return _read(_file())
    except FAULTS as error:
        _say_once(_first_line(error))
        return {}


def _file() -> Path:
    """`COURSE_PROGRESS`, which keeps tests out of a learner's file, or one in the cache."""
    from course_utils.machine import cache_dir

    named = os.environ.get("COURSE_PROGRESS")
    return Path(named).expanduser() if named else cache_dir() / "progress.json"


def _read(file: Path) -> dict[str, str]:
    """The states in the file, none if there is no file; raises `Unusable` saying why."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        raise Unusable("It is damaged.") from None
    if not isinstance(found, dict):
        raise Unusable("It holds something else.")
    version = found.get("version", 1)
    if isinstance(version, int) and version > VERSION:
        raise Unusable("It was written by a newer version of the course.")
    states = found if version == 1 else found.get("states")
    if version not in (1, VERSION) or not isinstance(states, dict):
        raise Unusable("It holds something else.")
    return {name: state for name, state in states.items() if isinstance(state, str)}


def _read_or_begin_anew(file: Path) -> dict[str, str]:
    """The states; a file that cannot be used is renamed, never written over."""
    try:
        return _read(file)
    except Unusable as error:
        names = (file.with_name(f"{file.stem}-aside-{k}{file.suffix}") for k in itertools.count(1))
        aside = next(name for name in names if not name.exists())
        file.rename(aside)
        _say_once(f"{error} It is kept as {aside}, and a new one is begun.")
        return {}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


_said: list[str] = []


def _say_once(story: str) -> None:
    """Prints one line in the life of a kernel: a broken file must not fill a notebook."""
    if not _said:
        _said.append(story)
        print(f"(Your saved progress could not be used. {story})")
