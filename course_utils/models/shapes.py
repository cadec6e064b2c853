"""What a model cannot read is refused in words: which axis, which value, and what was expected."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from course_utils.errors import DataError


def need_shape(name: str, tensor: Tensor, expected: Sequence[int | None], *, axes: str) -> None:
    """Nothing; raises a `DataError` that says which axis of the tensor `name` is not as expected.

    `expected` has the length of every axis, None where any will do; `axes` says what they mean.
    """
    if not isinstance(tensor, Tensor):
        raise DataError(
            f"{name} is a {type(tensor).__name__}, expected a tensor {axes}.",
            do="Make a tensor of it with torch.as_tensor.",
        )
    found = tuple(tensor.shape)
    fits = [n is None or n == length for n, length in zip(expected, found, strict=False)]
    if len(found) == len(expected) and all(fits):
        return
    if len(found) != len(expected):
        what = f"{name} has {len(found)} axes, expected {len(expected)}"
    else:
        axis = fits.index(False)
        what = f"Axis {axis} of {name} is {found[axis]} long, expected {expected[axis]}"
    wanted = ", ".join("any" if n is None else str(n) for n in expected)
    raise DataError(f"{what}: the shape is {found} and should be ({wanted}), that is {axes}.")


def need_ids(
    name: str, ids: Tensor, size: int, *, shape: Sequence[int | None] = (None, None)
) -> None:
    """Nothing; raises a `DataError` that names the first of the ids (B, S) not in 0 ... size - 1.

    While a model is compiled or exported, and on the meta device, there are no values to look at:
    only shape and dtype are checked.
    """
    need_shape(name, ids, shape, axes="(B, S)")
    if ids.dtype not in (torch.int64, torch.int32):
        raise DataError(
            f"{name} is of {ids.dtype}, expected whole numbers, torch.int64.",
            do=f"Convert it with {name}.long().",
        )
    if torch.compiler.is_compiling() or ids.is_meta:
        return
    if not ids.numel():
        raise DataError(f"{name} is empty: its shape is {tuple(ids.shape)}.", do="Give some text.")
    outside = (ids < 0) | (ids >= size)
    if outside.any():
        text, token = outside.nonzero()[0].tolist()
        raise DataError(
            f"{name} has the value {ids[text, token].item()}, expected 0 to {size - 1}.",
            where=f"text {text}, token {token}, both counted from 0",
        )
