"""Claims: a sentence of the text, and the measurement that makes it true on this machine."""

from __future__ import annotations

from typing import Any

from course_utils.errors import CourseError


class ClaimError(CourseError):
    """A sentence that does not hold here, or one that no True or False stands behind."""


def claim(sentence: str, holds: Any) -> None:
    """Nothing; prints "✓ sentence" when `holds` is true.

    `holds` is one True or False: a Python, NumPy or torch bool. The printed line is compared when
    the notebooks are tested, so `sentence` contains no number that differs from run to run: write
    the limit ("at least 95 %"), not the measurement.

    Raises `ClaimError`, naming the sentence, when `holds` is false; and when it is anything but one
    True or False, because `claim("…", accuracy)` would hold for every accuracy above zero.
    """
    if not _is_one_bool(holds):
        raise ClaimError(
            f"A claim needs one True or False, and this one was given {_named(holds)}.",
            where=f"claim({sentence!r}, …)",
            do="Write the comparison, for example `ratio >= 0.95`; for many values use `.all()`.",
        )
    if not holds:
        raise ClaimError(
            f"This does not hold here: {sentence}",
            do="Look at the numbers in the cells above; if you changed something, this is what it "
            "changed.",
        )
    print(f"✓ {sentence}")


def _is_one_bool(value: Any) -> bool:
    """Whether `value` is a bool of Python, NumPy or torch (told by its dtype: imports neither)."""
    if isinstance(value, bool):
        return True
    dtype = str(getattr(value, "dtype", ""))
    return dtype in ("bool", "torch.bool") and getattr(value, "ndim", None) == 0


def _named(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is not None and tuple(shape):
        return f"an array of shape {tuple(shape)}"
    return f"{value!r} (a {type(value).__name__})"
