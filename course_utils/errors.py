"""Errors a person can act on: each says what is wrong, where, and what to do about it."""

from __future__ import annotations

from pathlib import Path


class CourseError(Exception):
    """What went wrong, in words for the person at the keyboard.

    `what` is one sentence; `where` names the file, row or column; `do` is the next thing to try.
    """

    def __init__(self, what: str, *, where: str | Path | None = None, do: str | None = None):
        self.what, self.where, self.do = what, where, do
        lines = [what]
        if where is not None:
            lines.append(f"  where: {where}")
        if do is not None:
            lines.append(f"  what to do: {do}")
        super().__init__("\n".join(lines))

    def _render_traceback_(self) -> list[str]:
        """Inside IPython the words are shown, and no traceback."""
        return f"{type(self).__name__}: {self}".splitlines()


class DataError(CourseError):
    """A table, text, label or data set that cannot be used as it is."""


class ModelError(CourseError):
    """Weights, a configuration or a tokenizer that cannot be used as they are."""


class OutputError(CourseError):
    """Something could not be written; what was there before is still there."""
