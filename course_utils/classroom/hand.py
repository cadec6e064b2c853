"""For tensors small enough to check by hand: print them with names, compare them with others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from course_utils.errors import DataError

WIDTH = 8  # characters of a column


def legend(matrix: Tensor, rows: Sequence[Any], columns: Sequence[Any] = ()) -> None:
    """Nothing; prints a matrix with the names of its rows and columns, two decimals per number.

    Raises `DataError` when the names are not as many as the rows or, if there are any, the columns.
    """
    names = (len(rows), len(columns) or matrix.shape[-1])
    if matrix.dim() != 2 or tuple(matrix.shape) != names:
        raise DataError(
            f"{names[0]} names for rows and {names[1]} for columns do not fit a tensor of shape "
            f"{tuple(matrix.shape)}."
        )
    if columns:
        print(" " * WIDTH + "".join(f"{name:>{WIDTH}}" for name in columns))
    for name, numbers in zip(rows, matrix.tolist(), strict=True):
        # + 0 makes 0.0 of the -0.0 that rounding leaves behind
        print(f"{name:>{WIDTH}}" + "".join(f"{round(x, 2) + 0:{WIDTH}.2f}" for x in numbers))


def near(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two tensors have one shape and agree to five decimals."""
    return ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=0, atol=1e-5)
