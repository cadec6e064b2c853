"""What a learner's function did on one case, told apart from what another function did."""

from __future__ import annotations

import linecache
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Number
from types import EllipsisType
from typing import Any

import numpy as np

MOST_NUMBERS = 24  # an input with more numbers than this is described, not printed


@dataclass(frozen=True)
class Outcome:
    """What a function returned for one case, or the exception it raised instead."""

    value: Any = None
    error: Exception | None = None

    def is_stub(self) -> bool:
        """Whether the function is still the stub: None, `...` or NotImplementedError."""
        if self.error is not None:
            return isinstance(self.error, NotImplementedError)
        return self.value is None or isinstance(self.value, EllipsisType)

    def matches(self, other: Outcome, tolerance: float) -> bool:
        """Whether both did the same: equal values, or the same exception with the same words."""
        if self.error is not None or other.error is not None:
            return type(self.error) is type(other.error) and str(self.error) == str(other.error)
        return same(self.value, other.value, tolerance)


def run(function: Callable, case: tuple, *, quiet: bool = True) -> Outcome:
    """The outcome of `function(*case)`; `quiet` keeps warnings of the course's own code away."""
    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore")
        try:
            return Outcome(value=function(*case))
        except Exception as error:  # whatever a learner's code may raise is an answer to them
            return Outcome(error=error)


def is_tensor(value: Any) -> bool:
    """Whether `value` is a torch tensor, without importing torch."""
    return hasattr(value, "detach") and hasattr(value, "requires_grad")


def is_data(value: Any) -> bool:
    """Whether `value` is made of numbers, texts, arrays, tensors and nothing else."""
    if isinstance(value, dict):
        return all(map(is_data, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(is_data, value))
    return value is None or isinstance(value, (Number, str, np.ndarray)) or is_tensor(value)


def same(left: Any, right: Any, tolerance: float) -> bool:
    """Whether two values are equal, numbers within `tolerance` (absolute and relative).

    A tensor, an array, a list and a number hold the same value when shapes and numbers agree.
    """
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(
            same(left[key], right[key], tolerance) for key in left
        )
    a, b = _numbers(left), _numbers(right)
    if a is not None and b is not None:
        return a.shape == b.shape and bool(
            np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
        )
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(
            same(x, y, tolerance) for x, y in zip(left, right, strict=True)
        )
    return a is None and b is None and type(left) is type(right) and bool(left == right)


def kind(value: Any) -> str:
    """`value`'s type and shape in words: "a number", "an array of shape (4, 3)"."""
    if value is None:
        return "nothing (None)"
    if is_tensor(value):
        grad = " with a gradient" if value.requires_grad else ""
        return f"a torch tensor of shape {tuple(value.shape)}{grad}"
    numbers = _numbers(value)
    if numbers is not None and not isinstance(value, (list, tuple)):
        return f"an array of shape {numbers.shape}" if numbers.ndim else "a number"
    if isinstance(value, (list, tuple, dict)):
        return f"a {type(value).__name__} of length {len(value)}"
    return "a text" if isinstance(value, str) else f"a {type(value).__name__}"


def fits(value: Any, expected: Any) -> bool:
    """Whether `value` has the type and shape of `expected`; for numbers any container will do.

    A tensor is asked for where the reference returns one: `.item()` would lose its gradient.
    """
    if is_tensor(expected):
        return is_tensor(value) and kind(value) == kind(expected)
    a, b = _numbers(value), _numbers(expected)
    if a is not None and b is not None:
        return a.shape == b.shape
    return kind(value) == kind(expected)


def words(value: Any) -> str:
    """`value` as short text: numbers with 4 significant digits, big arrays as their shape."""
    numbers = _numbers(value)
    if numbers is not None:
        return kind(value) if numbers.size > MOST_NUMBERS else _list(numbers.tolist())
    if is_data(value) and isinstance(value, (list, tuple)) and len(value) <= MOST_NUMBERS:
        return "[" + ", ".join(map(words, value)) + "]"
    return repr(value) if isinstance(value, str) else kind(value)


def size(case: tuple) -> int:
    """How many numbers a case holds: the smallest case is the best one to look at."""
    return sum(1 if (numbers := _numbers(part)) is None else numbers.size for part in case)


def in_words(error: Exception, function: Callable) -> str:
    """The exception, its message and the line of the learner's own code where it arose."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    frame, number = error.__traceback__, None
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == file:
            number = frame.tb_lineno
        frame = frame.tb_next
    if number is None:
        return text
    return f"{text}\n    in line {number}: {linecache.getline(file, number).strip()}".rstrip(": ")


def _numbers(value: Any) -> np.ndarray | None:
    """`value` as an array of float64, or None when it is not made of numbers of one shape."""
    if is_tensor(value):
        value = value.detach().cpu().double().numpy()
    if not isinstance(value, (Number, np.ndarray, np.generic, list, tuple)):
        return None
    if isinstance(value, (list, tuple)):
        parts = [_numbers(part) for part in value]
        if any(part is None for part in parts) or len({part.shape for part in parts}) != 1:
            return None
        return np.stack(parts)
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind in "biuf" else None


def _list(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_list, value)) + "]"
    return f"{value:.4g}"
