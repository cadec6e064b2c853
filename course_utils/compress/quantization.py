"""Numbers as small integers, from scratch: scale, zero point, error, and products of integers.

A real number x is stored as the integer round(x / scale) + zero_point, cut to what fits into the
bits. Jacob et al. 2018, "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from course_utils.errors import DataError

# What multiplies 8-bit numbers and adds the products in one instruction, in machine.py's names.
INT8_DOT_PRODUCT = {"avx512_vnni", "avx_vnni", "amx_int8", "dotprod", "i8mm"}


@dataclass(frozen=True)
class QParams:
    """How real numbers become integers: x is about (integer - zero_point) · scale.

    `scale` (float) and `zero_point` (int32) have one shape: () for a whole tensor; 1 everywhere but
    in one dimension for a pair per channel; (..., G, 1), a dimension more than the tensor, for G
    groups along its last one. `signed` integers of 8 bits go from -127 to 127, as many below 0 as
    above; the others from 0 to 255.
    """

    scale: Tensor
    zero_point: Tensor
    bits: int = 8
    signed: bool = True

    @property
    def low(self) -> int:
        """The smallest integer."""
        return 1 - 2 ** (self.bits - 1) if self.signed else 0

    @property
    def high(self) -> int:
        """The largest integer."""
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1


class Error(NamedTuple):
    """The mean squared difference that quantization makes, in two parts that add up to it."""

    rounding: float  # of numbers inside the range
    clipping: float  # of numbers beyond it, which became its ends

    @property
    def total(self) -> float:
        return self.rounding + self.clipping


def from_range(
    low: Tensor | float, high: Tensor | float, *, bits: int = 8, symmetric: bool
) -> QParams:
    """The parameters that spread the integers over the real numbers from `low` to `high`.

    Zero is always a point of the grid, so that padding and ReLU's zeros cost nothing: a range that
    leaves it out is widened. Symmetric integers are signed, their range goes as far to either side,
    and the zero point is 0; asymmetric ones are unsigned. Raises `DataError` for bits other than 2
    to 8 and for ends that are not finite or change places.
    """
    need_bits(bits)
    low, high = torch.as_tensor(low).float(), torch.as_tensor(high).float()
    if not (low.isfinite().all() and high.isfinite().all()):
        raise DataError(
            "A range to quantize is not finite.",
            do="Look for NaN and infinities in the numbers it was taken from.",
        )
    if (low > high).any():
        raise DataError("A range begins above its end.", do="Give low first, then high.")
    low, high = low.clamp(max=0), high.clamp(min=0)
    if symmetric:
        scale = _not_zero(torch.maximum(-low, high) / (2 ** (bits - 1) - 1))
        return QParams(scale, torch.zeros_like(scale, dtype=torch.int32), bits, signed=True)
    scale = _not_zero((high - low) / (2**bits - 1))
    return QParams(scale, torch.round(-low / scale).int(), bits, signed=False)


def need_bits(bits: int) -> None:
    """Nothing; raises `DataError` for bits other than 2 to 8."""
    if bits not in range(2, 9):
        raise DataError(f"There are no integers of {bits} bits here.", do="Take 2 to 8 bits.")


def affine(
    x: Tensor,
    *,
    bits: int = 8,
    symmetric: bool,
    dim: int | None = None,
    group_size: int | None = None,
) -> QParams:
    """The parameters for `x` from its own smallest and largest numbers: nothing is clipped.

    One pair for the tensor; with `dim` one per channel, that is per index of this dimension (0 for
    the rows, the outputs, of an `nn.Linear.weight`); with `group_size` one for each run of so many
    numbers along the last dimension. Raises `DataError` for an empty or not finite tensor, for
    `dim` together with `group_size`, a dimension that does not exist, and for groups that do not
    fill the last one.
    """
    if not x.numel():
        raise DataError("There is no number to quantize.", do="Give a tensor that is not empty.")
    if group_size is not None:
        if dim is not None:
            raise DataError("Either channels or groups.", do="Give dim or group_size, not both.")
        if group_size < 1 or x.dim() < 1 or x.shape[-1] % group_size:
            raise DataError(
                f"Groups of {group_size} do not fill a last dimension of {tuple(x.shape)[-1:]}.",
                do="Take a group size that divides it.",
            )
        x = x.unflatten(-1, (-1, group_size))  # (..., G, group_size)
        low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    elif dim is not None:
        if dim not in range(-x.dim(), x.dim()):
            raise DataError(f"A tensor of {x.dim()} dimensions has no dimension {dim}.")
        others = [d for d in range(x.dim()) if d != dim % x.dim()]
        low, high = (x.amin(others, True), x.amax(others, True)) if others else (x, x)
    else:
        low, high = x.amin(), x.amax()
    return from_range(low.detach(), high.detach(), bits=bits, symmetric=symmetric)


def quantize_tensor(x: Tensor, q: QParams) -> Tensor:
    """The integers of `x`, in its shape: int8 if they are signed, else uint8.

    Halves are rounded to the even neighbour, as ONNX and PyTorch do.
    """
    integers = on_grid(x, q).clamp(q.low, q.high)
    return integers.to(torch.int8 if q.signed else torch.uint8).reshape(x.shape)


def dequantize(integers: Tensor, q: QParams) -> Tensor:
    """The real numbers that the integers stand for, float32, in their shape."""
    return ((_parts(integers, q).float() - q.zero_point) * q.scale).reshape(integers.shape)


def error(x: Tensor, q: QParams) -> Error:
    """The mean squared error of `x` when it is stored as integers: its two parts."""
    squared = (x - dequantize(quantize_tensor(x, q), q)).double().square()
    integers = on_grid(x, q).reshape(x.shape)
    clipped = (integers < q.low) | (integers > q.high)
    n = x.numel()
    return Error(squared[~clipped].sum().item() / n, squared[clipped].sum().item() / n)


def int_matmul(
    x: Tensor, w: Tensor, *, x_zero: Tensor | int = 0, w_zero: Tensor | int = 0
) -> Tensor:
    """(x - x_zero) @ (w - w_zero) as int32, (..., N, M), from 8-bit integers (..., N, K), (K, M).

    The product is taken of the integers as they are, and what the zero points add is subtracted
    after it: Σ(x - a)(w - b) = Σxw - aΣw - bΣx + Kab. So the inner loop sees 8-bit numbers only. A
    zero point belongs to a row of x, (N, 1), to a column of w, (M,), or to all. int32 holds the sum
    of 33 000 products of any 8-bit integers. Raises `DataError` for other types or shapes.
    """
    if {x.dtype, w.dtype} - {torch.int8, torch.uint8}:
        raise DataError(
            f"Numbers of {x.dtype} and {w.dtype} are not 8-bit integers.",
            do="Quantize both with quantize_tensor first.",
        )
    if x.dim() < 1 or w.dim() != 2 or x.shape[-1] != w.shape[0]:
        raise DataError(
            f"A product of {tuple(x.shape)} and {tuple(w.shape)} does not exist.",
            do="Give (..., N, K) and (K, M).",
        )
    wide_x, wide_w = x.int(), w.int()  # int32, where the sums of products fit
    product = wide_x @ wide_w  # (..., N, M)
    of_columns, of_rows = wide_w.sum(0).int(), wide_x.sum(-1, keepdim=True).int()
    return product - x_zero * of_columns - of_rows * w_zero + x.shape[-1] * x_zero * w_zero


def on_grid(x: Tensor, q: QParams) -> Tensor:
    """The integers before they are cut to the range, as float; groups have their own dimension."""
    return torch.round(_parts(x, q) / q.scale) + q.zero_point


def _parts(x: Tensor, q: QParams) -> Tensor:
    """`x`, with the groups as a dimension of their own if `q` has groups."""
    if q.scale.dim() <= x.dim():
        return x
    if x.shape[-1] % q.scale.shape[-2]:
        raise DataError(
            f"{x.shape[-1]} numbers in a row cannot be {q.scale.shape[-2]} groups.",
            do="Use the parameters with tensors of the shape they were made for.",
        )
    return x.unflatten(-1, (q.scale.shape[-2], -1))  # (..., G, group_size)


def _not_zero(scale: Tensor) -> Tensor:
    """The scale; 1 where all numbers are zero, or too near to it for a float."""
    return torch.where(scale > torch.finfo(torch.float32).tiny, scale, 1.0)
