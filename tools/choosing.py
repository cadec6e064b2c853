"""The files that somebody names on the command line, by number or by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from course_utils.errors import CourseError


def choose(names: Sequence[str], files: Sequence[Path], *, kind: str) -> list[Path]:
    """Those of `files` with these numbers ("00") or names; all of them when none is named.

    Raises `CourseError` when a name fits none of them; it says what `kind` of file there are.
    """
    chosen = []
    for name in names:
        stem = Path(name).stem
        fits = [path for path in files if stem in (path.stem, path.stem.partition("_")[0])]
        if not fits:
            known = ", ".join(path.stem for path in files) or "none"
            raise CourseError(f"There is no {kind} {name}.", do=f"Use one of: {known}.")
        chosen += fits
    return chosen if names else list(files)
