"""Notebook 10, Quantization: scale and zero point, rows, integers, bytes, ranges, a gradient."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from course_utils.classroom.checks import exercise


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Scale and zero point


def _ranges() -> Iterator[tuple[float, float]]:
    yield from [(-1.0, 4.1), (-6.3, 1.35), (0.85, 10.2), (-5.1, -2.04)]


def _spread(
    low: float, high: float, *, steps: int = 255, with_zero: bool = True
) -> tuple[float, int]:
    """Scale and zero point, right by default; each option is a place to go wrong."""
    if with_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / steps
    return scale, round(-low / scale)


@exercise(
    cases=_ranges,
    hints=(
        "Integer 0 stands for the lower end, 255 for the upper one. How many steps are between "
        "them, and how wide is each?",
        "scale = (high - low) / 255. The zero point is the integer that stands for 0.0: how many "
        "steps above `low` is that? round(…) makes an integer of it.",
        "0.0 must be on the grid even if all numbers are positive: first low = min(low, 0) and "
        "high = max(high, 0). Then the zero point is round(-low / scale).",
    ),
)
def scale_and_zero_point(low: float, high: float) -> tuple[float, int]:
    """(scale, zero point) that spread the integers 0 to 255 over low to high, 0.0 among them."""
    return _spread(low, high)


@scale_and_zero_point.mistake(
    "You divide by 256. 256 integers have 255 steps between them, as a ruler of 10 cm has 11 "
    "marks: your upper end is an integer that does not exist."
)
def steps_of_256(low, high):
    return _spread(low, high, steps=256)


@scale_and_zero_point.mistake(
    "Where all numbers lie on one side of 0, your grid leaves 0.0 out, and the zero point is no "
    "integer from 0 to 255 any more. Padding and ReLU are exact zeros: widen the range to hold 0."
)
def zero_left_out(low, high):
    return _spread(low, high, with_zero=False)


@scale_and_zero_point.mistake(
    "You spread signed integers evenly on both sides of 0, zero point 0. That is the symmetric "
    "way; with numbers mostly on one side half of the integers is never used."
)
def symmetric_instead(low, high):
    return max(abs(low), abs(high)) / 127, 0


@scale_and_zero_point.mistake(
    "The zero point has the wrong sign. It is how many steps 0.0 lies *above* `low`: -low / scale, "
    "and low is negative or 0."
)
def sign_of_the_zero_point(low, high):
    scale, zero_point = _spread(low, high)
    return scale, -zero_point


@scale_and_zero_point.mistake(
    "You return `low` itself, or its distance from 0, as the zero point. It is one of the "
    "integers: divide by the scale, and round."
)
def zero_point_in_real_numbers(low, high):
    return _spread(low, high)[0], -min(low, 0.0)


@scale_and_zero_point.mistake(
    "Your scale is upside down: integers per unit, not units per integer. In this course x is "
    "about (integer - zero point) · scale."
)
def scale_upside_down(low, high):
    scale, zero_point = _spread(low, high)
    return 1 / scale, zero_point


# One scale for each row


def _matrices() -> Iterator[tuple[Tensor]]:
    for seed, (rows, columns) in enumerate([(2, 3), (3, 5), (5, 4)]):
        sizes = torch.logspace(-1, 1, rows)[:, None]  # rows of very different size
        yield (_normal(rows, columns, seed=seed) * sizes,)


def _by_rows(
    weight: Tensor, *, peak: Tensor | None = None, levels: int = 127, whole: bool = True
) -> tuple[Tensor, Tensor]:
    """Integers and scales, right by default; each option is a place to go wrong."""
    peak = weight.abs().amax(1, keepdim=True) if peak is None else peak
    scale = peak / levels
    integers = weight / scale
    return (torch.round(integers) if whole else integers).clamp(-127, 127).to(torch.int8), scale


@exercise(
    cases=_matrices,
    tolerance=1e-5,
    hints=(
        "Each row has a number that is largest in size. This one becomes 127 or -127, and the "
        "others of its row follow.",
        "weight.abs().amax(1, keepdim=True) is (M, 1): keepdim lets it be divided into (M, K).",
        "scale = that / 127; integers = torch.round(weight / scale).to(torch.int8).",
    ),
)
def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(integers (M, K) as int8, scales (M, 1)): symmetric, -127 to 127, a scale for each row."""
    return _by_rows(weight)


@quantize_rows.mistake(
    "You have one scale for the whole matrix. The largest row sets it, and the small rows get two "
    "or three of the 255 integers."
)
def one_scale_for_all(weight):
    peak = weight.abs().max().expand(len(weight), 1)
    return _by_rows(weight, peak=peak)


@quantize_rows.mistake(
    "Your scales belong to the columns. A row of an nn.Linear's weight makes one output; its scale "
    "can wait until after the sum. A column's scale would have to go into the sum."
)
def a_scale_for_each_column(weight):
    return _by_rows(weight, peak=weight.abs().amax(0, keepdim=True))


@quantize_rows.mistake(
    "You take the largest *number* of each row, and a row may have its largest size below 0: take "
    "abs() first. What is beyond -127 was clipped."
)
def largest_without_abs(weight):
    return _by_rows(weight, peak=weight.amax(1, keepdim=True).clamp(min=1e-9))


@quantize_rows.mistake(
    "You cut the decimals off instead of rounding: .to(torch.int8) goes towards 0, and the error "
    "is twice as large, and always to the same side. torch.round first."
)
def cut_off(weight):
    return _by_rows(weight, whole=False)


@quantize_rows.mistake(
    "You divide by 128. int8 goes from -128 to 127: 128 does not fit, and the largest number of a "
    "row is clipped. With -127 to 127 both sides have as many."
)
def up_to_128(weight):
    return _by_rows(weight, levels=128)


@quantize_rows.mistake(
    "You use all integers from 0 to 255 in your scale (a row's span / 255). That is the asymmetric "
    "way, which needs a zero point, too."
)
def span_of_the_row(weight):
    span = weight.amax(1, keepdim=True) - weight.amin(1, keepdim=True)
    return _by_rows(weight, peak=span, levels=255)


# Products of integers


def _integers(
    *shape: int, seed: int, low: int = 0, high: int = 256, dtype: torch.dtype = torch.uint8
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, shape, generator=generator).to(dtype)


def _products() -> Iterator[tuple[Tensor, Tensor, int]]:
    for seed, (n, k, m) in enumerate([(1, 2, 2), (2, 4, 3), (3, 16, 2)]):
        w = _integers(k, m, seed=seed, low=-127, high=128, dtype=torch.int8)
        yield _integers(n, k, seed=10 + seed), w, (100, 131, 17)[seed]


@exercise(
    cases=_products,
    hints=(
        "What do the integers of x stand for? (x - x_zero) · scale. So x_zero has to go, before "
        "the product or after it.",
        "A product of two 8-bit numbers has 16 bits, and a sum of many has more. Make both int32 "
        "first: x.int().",
        "(x.int() - x_zero) @ w.int(). Or, as processors do it: x.int() @ w.int() - x_zero · (the "
        "sum of each column of w).",
    ),
)
def integer_matmul(x: Tensor, w: Tensor, x_zero: int) -> Tensor:
    """(x - x_zero) @ w as int32, (N, M), for x (N, K) uint8 and w (K, M) int8."""
    return (x.int() - x_zero) @ w.int()


@integer_matmul.mistake(
    "You multiply the integers and forget the zero point. Every x is then x_zero steps too large, "
    "and each output is off by x_zero · the sum of a column."
)
def zero_point_forgotten(x, w, x_zero):
    return x.int() @ w.int()


@integer_matmul.mistake(
    "You subtract the zero point in uint8. There 3 - 5 is 254: what is below zero comes back from "
    "above. First .int(), then subtract."
)
def zero_point_in_uint8(x, w, x_zero):
    return (x - x_zero).int() @ w.int()


@integer_matmul.mistake(
    "Your sums are kept in 8 bits, so what is left is their remainder. Two 8-bit numbers have a "
    "16-bit product, and a sum of thousands needs 32: make both int32 before the product."
)
def sums_in_8_bits(x, w, x_zero):
    return ((x.int() - x_zero) @ w.int()).to(torch.int8).int()


@integer_matmul.mistake(
    "You read x as int8 before you subtract. 200 does not fit there, it becomes -56. x is uint8: "
    "go straight to .int()."
)
def x_as_int8(x, w, x_zero):
    return (x.to(torch.int8).int() - x_zero) @ w.int()


@integer_matmul.mistake(
    "You subtract x_zero once from each output. It is in each of the K products, times another "
    "weight: subtract x_zero · (the sum of the column)."
)
def zero_point_once(x, w, x_zero):
    return x.int() @ w.int() - x_zero


@integer_matmul.mistake(
    "You sum the rows of w where its columns are meant: x_zero meets every weight of a *column*, "
    "w.int().sum(0), for (x - x_zero) @ w."
)
def zero_point_times_all_weights(x, w, x_zero):
    return x.int() @ w.int() - x_zero * w.int().sum()


# Bytes


def _files() -> Iterator[tuple[int, int, int]]:
    yield from [(1024, 4, 32), (4096, 8, 64), (98304, 4, 128), (2304, 2, 16)]


@exercise(
    cases=_files,
    hints=(
        "A byte has 8 bits. How many bytes have n weights of 4 bits?",
        "Every group of weights has a scale of its own, a float32. How many groups are there, and "
        "how many bytes is a float32?",
        "n_weights * bits / 8 + n_weights / group_size * 4.",
    ),
)
def quantized_bytes(n_weights: int, bits: int, group_size: int) -> float:
    """Bytes of the weights, and of one float32 scale for each group of them."""
    return n_weights * bits / 8 + n_weights / group_size * 4


@quantized_bytes.mistake(
    "You count bits as bytes: a file of so many *bits*. There are 8 bits in a byte."
)
def bits_for_bytes(n_weights, bits, group_size):
    return n_weights * bits + n_weights / group_size * 4


@quantized_bytes.mistake(
    "The scales are missing. With 4 bits and groups of 32 they are a fifth of the file: 4 bits are "
    "really 5."
)
def scales_forgotten(n_weights, bits, group_size):
    return n_weights * bits / 8


@quantized_bytes.mistake(
    "You give a scale to every weight; then nothing is saved. A group of weights shares one: there "
    "are n_weights / group_size of them."
)
def a_scale_for_each_weight(n_weights, bits, group_size):
    return n_weights * bits / 8 + n_weights * 4


@quantized_bytes.mistake(
    "Your scales have `bits` bits, as the weights have. They are what the weights are multiplied "
    "with: float32, 4 bytes each."
)
def scales_as_small_as_weights(n_weights, bits, group_size):
    return (n_weights + n_weights / group_size) * bits / 8


@quantized_bytes.mistake(
    "You count `group_size` scales. That is how many weights are in a group; there are "
    "n_weights / group_size groups."
)
def group_size_scales(n_weights, bits, group_size):
    return n_weights * bits / 8 + group_size * 4


# A range that leaves a few out


def _activations() -> Iterator[tuple[np.ndarray, float]]:
    for seed, (n, share) in enumerate([(11, 0.8), (41, 0.9), (201, 0.98)]):
        values = np.random.default_rng(seed).standard_normal(n) + 0.5
        values[seed] = 30.0  # an outlier
        yield values, share


@exercise(
    cases=_activations,
    hints=(
        "A share of 0.9 keeps nine numbers of ten. The tenth is lost on two sides: how much of it "
        "on each?",
        "np.quantile(values, q) is the number that a share q of the values lies below.",
        "rest = (1 - share) / 2; the range is np.quantile(values, rest), np.quantile(values, "
        "1 - rest).",
    ),
)
def percentile_range(values: np.ndarray, share: float) -> tuple[float, float]:
    """(low, high) that hold this share of the values, half of the rest beyond either end."""
    rest = (1 - share) / 2
    return np.quantile(values, rest), np.quantile(values, 1 - rest)


@percentile_range.mistake(
    "You return the smallest and the largest value: nothing is left out, and one outlier decides "
    "how coarse all the others are stored."
)
def the_whole_range(values, share):
    return values.min(), values.max()


@percentile_range.mistake(
    "You leave out twice as much as you should: 1 - share on *each* side. Half of it belongs to "
    "either end."
)
def the_rest_on_each_side(values, share):
    return np.quantile(values, 1 - share), np.quantile(values, share)


@percentile_range.mistake(
    "You take this share of the largest value. How many values are below it depends on the "
    "outlier; what is asked is a share of their *number*."
)
def a_share_of_the_peak(values, share):
    return share * values.min(), share * values.max()


@percentile_range.mistake(
    "You cut on the right side alone. Activations have outliers on both sides; which one is "
    "larger depends on the layer."
)
def one_side_alone(values, share):
    return values.min(), np.quantile(values, share)


@percentile_range.mistake(
    "You take the quantile of the absolute values, and the same to the left. Where the numbers are "
    "not centred at 0, integers of one side are wasted."
)
def of_absolute_values(values, share):
    high = np.quantile(np.abs(values), share)
    return -high, high


# The gradient of a step function


def _fakes() -> Iterator[tuple[Tensor, Tensor, float]]:
    yield torch.tensor([0.26, -1.9, 0.05]), torch.tensor([1.0, -2.0, 3.0]), 0.01
    yield _normal(3, 4, seed=0), _normal(3, 4, seed=1), 0.009
    yield 100 * _normal(12, seed=2), _normal(12, seed=3), 0.25


def _inside(x: Tensor, scale: float) -> Tensor:
    return (x / scale).round().abs() <= 127


@exercise(
    cases=_fakes,
    hints=(
        "Rounding has the derivative 0 almost everywhere. The straight-through estimator pretends "
        "that it was not there: what goes in comes out.",
        "But for clipped numbers the output does not move when x moves a little. There the "
        "derivative really is 0.",
        "inside = (x / scale).round().abs() <= 127; the answer is gradient * inside.",
    ),
)
def straight_through(x: Tensor, gradient: Tensor, scale: float) -> Tensor:
    """The gradient for x, from that for the int8 version of x (symmetric, -127 to 127)."""
    return gradient * _inside(x, scale)


@straight_through.mistake(
    "You let the gradient through everywhere. A clipped number keeps its output whichever way it "
    "moves a little: its gradient is 0, or it would run away further and further."
)
def clipped_numbers_too(x, gradient, scale):
    return gradient.clone()


@straight_through.mistake(
    "You return 0, the true derivative of rounding almost everywhere. It is right, and nothing is "
    "learned from it. Pretend that rounding was not there."
)
def the_true_derivative(x, gradient, scale):
    return torch.zeros_like(gradient)


@straight_through.mistake(
    "You let it through where numbers were clipped, and stop it where they were rounded: the other "
    "way about."
)
def the_other_way(x, gradient, scale):
    return gradient * ~_inside(x, scale)


@straight_through.mistake(
    "You quantize the gradient. It is x that became integers; the gradient is a real number and "
    "stays one."
)
def the_gradient_quantized(x, gradient, scale):
    return (gradient / scale).round().clamp(-127, 127) * scale * _inside(x, scale)


@straight_through.mistake(
    "You multiply by the scale. On the way forward x was divided by it and multiplied again: the "
    "two cancel, and what is left is 1."
)
def times_the_scale(x, gradient, scale):
    return gradient * scale * _inside(x, scale)


@straight_through.mistake(
    "You compare x with 127, and it is x / scale that has to fit: the ends of the range are "
    "-127 · scale and 127 · scale."
)
def the_range_of_the_integers(x, gradient, scale):
    return gradient * (x.abs() <= 127)
