"""Exercises of notebook 10: right answers written another way are right, real slips are named."""

import numpy as np
import pytest
import torch

from course_utils.classroom.checks import exercises
from course_utils.compress.qat import fake_quant
from course_utils.compress.quantization import (
    QParams,
    affine,
    dequantize,
    from_range,
    int_matmul,
    quantize_tensor,
)

MINE = {name: exercise for name, exercise in exercises().items() if exercise.notebook == "10"}


# Right answers, written in other ways


def zero_point_with_the_library(low, high):
    q = from_range(low, high, symmetric=False)
    return q.scale.item(), q.zero_point.item()


def zero_point_with_numpy(low, high):
    ends = np.clip([low, high], [-np.inf, 0], [0, np.inf])
    scale = np.ptp(ends) / 255
    return scale, np.rint(-ends[0] / scale)


def rows_with_the_library(weight):
    q = affine(weight, symmetric=True, dim=0)
    return quantize_tensor(weight, q), q.scale


def rows_in_a_loop(weight):
    scales = [max(row.max(), -row.min()) / 127 for row in weight]
    integers = [(row / scale).round().char() for row, scale in zip(weight, scales, strict=True)]
    return torch.stack(integers), torch.stack(scales)[:, None]


def matmul_with_the_library(x, w, x_zero):
    return int_matmul(x, w, x_zero=x_zero)


def matmul_zero_point_afterwards(x, w, x_zero):
    return x.long() @ w.long() - x_zero * w.long().sum(0)


def matmul_in_numpy(x, w, x_zero):
    return torch.from_numpy((x.numpy().astype(int) - x_zero) @ w.numpy().astype(int))


def bytes_by_groups(n_weights, bits, group_size):
    return n_weights // group_size * (group_size * bits // 8 + 4)


def range_with_percentile(values, share):
    low, high = np.percentile(values, [50 * (1 - share), 50 * (1 + share)])
    return low, high


def gradient_with_the_library(x, gradient, scale):
    leaf = x.clone().requires_grad_()
    q = QParams(torch.tensor(scale), torch.tensor(0, dtype=torch.int32))
    fake_quant(leaf, q).backward(gradient)
    return leaf.grad


def gradient_with_where(x, gradient, scale):
    return torch.where((x / scale).abs() < 127.5, gradient, 0.0)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("scale_and_zero_point", zero_point_with_the_library),
        ("scale_and_zero_point", zero_point_with_numpy),
        ("quantize_rows", rows_with_the_library),
        ("quantize_rows", rows_in_a_loop),
        ("integer_matmul", matmul_with_the_library),
        ("integer_matmul", matmul_zero_point_afterwards),
        ("integer_matmul", matmul_in_numpy),
        ("quantized_bytes", bytes_by_groups),
        ("percentile_range", range_with_percentile),
        ("straight_through", gradient_with_the_library),
        ("straight_through", gradient_with_where),
    ],
)
def test_another_way_to_the_right_answer_is_right(name, answer):
    verdict = MINE[name].judge(answer)
    assert verdict.state == "right", verdict.why


# Slips as learners write them


def rows_with_max(weight):
    scales = weight.max(1, keepdim=True).values.clamp(min=1e-9) / 127
    return (weight / scales).round().clamp(-127, 127).char(), scales


def matmul_in_place_types(x, w, x_zero):
    return (x - x_zero).int() @ w.int()


@pytest.mark.parametrize(
    ("name", "answer", "mistake"),
    [
        (
            "scale_and_zero_point",
            lambda low, high: ((high - low) / 255, round(-low / ((high - low) / 255))),
            "zero_left_out",
        ),
        (
            "scale_and_zero_point",
            lambda low, high: (max(-low, high) / 127, 0),
            "symmetric_instead",
        ),
        ("quantize_rows", rows_with_max, "largest_without_abs"),
        (
            "quantize_rows",
            lambda w: (
                (w / (w.abs().amax(1, True) / 127)).char(),
                w.abs().amax(1, keepdim=True) / 127,
            ),
            "cut_off",
        ),
        ("integer_matmul", matmul_in_place_types, "zero_point_in_uint8"),
        ("integer_matmul", lambda x, w, z: x.int() @ w.int() - z, "zero_point_once"),
        ("quantized_bytes", lambda n, bits, group: n * bits // 8, "scales_forgotten"),
        (
            "percentile_range",
            lambda values, share: tuple(np.quantile(values, [1 - share, share])),
            "the_rest_on_each_side",
        ),
        ("straight_through", lambda x, gradient, scale: gradient, "clipped_numbers_too"),
        (
            "straight_through",
            lambda x, gradient, scale: gradient * (x.abs() < 127),
            "the_range_of_the_integers",
        ),
    ],
)
def test_slips_as_learners_write_them_are_named(name, answer, mistake):
    verdict = MINE[name].judge(answer)
    assert (verdict.state, verdict.mistake) == ("wrong", mistake), verdict.why


def test_a_slip_nobody_foresaw_shows_a_case():
    verdict = MINE["quantized_bytes"].judge(lambda n, bits, group: n)
    assert (verdict.state, verdict.mistake) == ("wrong", None)
    assert "expected" in verdict.why


def test_the_right_rows_are_as_near_as_rounding_allows():
    for (weight,) in MINE["quantize_rows"].cases():
        integers, scales = MINE["quantize_rows"].reference(weight)
        assert integers.dtype == torch.int8
        assert ((integers * scales - weight).abs() <= 0.5001 * scales).all()


def test_the_right_zero_point_stands_for_zero():
    for low, high in MINE["scale_and_zero_point"].cases():
        scale, zero = MINE["scale_and_zero_point"].reference(low, high)
        q = QParams(torch.tensor(scale), torch.tensor(zero, dtype=torch.int32), signed=False)
        ends = torch.tensor([0.0, min(low, 0.0), max(high, 0.0)])
        integers = quantize_tensor(ends, q)
        assert integers.tolist() == [zero, 0, 255]
        torch.testing.assert_close(dequantize(integers, q), ends, atol=scale / 2, rtol=0)
