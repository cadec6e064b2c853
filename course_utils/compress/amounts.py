"""Amounts that a person writes: what is no number at all is refused as one out of range is."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any


def number(value: Any, kind: type = Real) -> Any:
    """The value if it is a number of that kind, and no bool; else NaN, which lies in no range."""
    return value if isinstance(value, kind) and not isinstance(value, bool) else math.nan
