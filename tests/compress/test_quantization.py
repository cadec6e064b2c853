"""Integers from scratch: the same as PyTorch's and ONNX Runtime's, and errors that add up."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from course_utils.compress.quantization import (
    QParams,
    affine,
    dequantize,
    error,
    from_range,
    int_matmul,
    on_grid,
    quantize_tensor,
)
from course_utils.errors import DataError


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(6, 16) * torch.tensor([1, 10, 0.1, 3, 1, 1.0])[:, None]


KINDS = [{}, {"dim": 0}, {"dim": 1}, {"dim": -1}, {"group_size": 4}, {"group_size": 16}]


# Parameters


def test_a_hand_sized_tensor():
    x = torch.tensor([-1.0, 0.0, 0.4, 2.0])
    q = affine(x, symmetric=False)
    assert q.scale.item() == pytest.approx(3 / 255)
    assert q.zero_point.item() == 85
    assert quantize_tensor(x, q).tolist() == [0, 85, 119, 255]
    q = affine(x, symmetric=True)
    assert q.scale.item() == pytest.approx(2 / 127)
    assert quantize_tensor(x, q).tolist() == [-64, 0, 25, 127]  # -63.5 to its even neighbour


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_nothing_is_clipped_and_no_number_is_off_by_more_than_half_a_step(x, kind, symmetric, bits):
    q = affine(x, bits=bits, symmetric=symmetric, **kind)
    integers = quantize_tensor(x, q)
    assert integers.dtype == (torch.int8 if symmetric else torch.uint8)
    assert integers.shape == x.shape
    assert q.low <= integers.min() <= integers.max() <= q.high
    off = (dequantize(integers, q) - x).abs().reshape(on_grid(x, q).shape)
    # the zero point is rounded, so that the grid may end half a step short of the range
    assert (off <= q.scale * (0.501 if symmetric else 1.001)).all()
    assert q.high - q.low + 1 == 2**bits - symmetric
    assert error(x, q).clipping <= error(x, q).total < x.var()


@pytest.mark.parametrize("symmetric", [True, False])
def test_each_channel_and_each_group_is_quantized_as_if_it_were_alone(x, symmetric):
    rows = affine(x, symmetric=symmetric, dim=0)
    groups = affine(x, symmetric=symmetric, group_size=4)
    assert rows.scale.shape == (6, 1)
    assert groups.scale.shape == (6, 4, 1)
    for i, row in enumerate(x):
        alone = affine(row, symmetric=symmetric)
        torch.testing.assert_close(rows.scale[i, 0], alone.scale)
        assert torch.equal(quantize_tensor(x, rows)[i], quantize_tensor(row, alone))
        for g in range(4):
            part = row[4 * g : 4 * g + 4]
            one = quantize_tensor(part, affine(part, symmetric=symmetric))
            assert torch.equal(quantize_tensor(x, groups)[i, 4 * g : 4 * g + 4], one)


def test_finer_scales_have_smaller_errors(x):
    kinds = [{}, {"dim": 0}, {"group_size": 4}]
    totals = [error(x, affine(x, bits=4, symmetric=True, **kind)).total for kind in kinds]
    assert totals[0] > 2 * totals[1] > 2 * totals[2]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("numbers", [[0.0, 0.0], [3.0, 5.0], [-5.0, -3.0], [1e-44, 0.0]])
def test_zero_is_always_on_the_grid(numbers, symmetric):
    x = torch.tensor([*numbers])
    q = affine(x, symmetric=symmetric)
    assert dequantize(quantize_tensor(torch.zeros(1), q), q).item() == 0
    assert (dequantize(quantize_tensor(x, q), q) - x).abs().max() < 0.04


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_numbers_on_the_grid_are_pytorchs(x, symmetric):
    q, rows = affine(x, symmetric=symmetric), affine(x, symmetric=symmetric, dim=0)
    theirs = torch.fake_quantize_per_tensor_affine(x, q.scale, q.zero_point, q.low, q.high)
    torch.testing.assert_close(dequantize(quantize_tensor(x, q), q), theirs)
    scales, zeros = rows.scale[:, 0], rows.zero_point[:, 0]
    theirs = torch.fake_quantize_per_channel_affine(x, scales, zeros, 0, rows.low, rows.high)
    torch.testing.assert_close(dequantize(quantize_tensor(x, rows), rows), theirs)


def test_parameters_and_integers_are_onnx_runtimes(x):
    """DynamicQuantizeLinear does it all: range, scale, zero point and integers."""
    ours = affine(x, symmetric=False)
    outputs = ["y", "scale", "zero"]
    y, scale, zero = run_node("DynamicQuantizeLinear", {"x": x.numpy()}, outputs, [2, 1, 2])
    assert ours.scale.item() == pytest.approx(float(scale))
    assert ours.zero_point.item() == zero
    np.testing.assert_array_equal(quantize_tensor(x, ours).numpy(), y)


def run_node(op, inputs, outputs, kinds):
    """What ONNX Runtime's operator gives."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(op, list(inputs), outputs)],
        "one",
        [info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in inputs.items()],
        [info(name, kind, None) for name, kind in zip(outputs, kinds, strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)


# Error


def test_a_narrow_range_clips_more_and_rounds_less(x):
    x = torch.cat([torch.randn(1000), torch.tensor([40.0])])
    wide, narrow = affine(x, bits=4, symmetric=True), from_range(-3, 3, bits=4, symmetric=True)
    assert error(x, wide).clipping == 0
    assert error(x, narrow).clipping > 0
    assert error(x, narrow).rounding < error(x, wide).rounding / 10


def test_the_two_errors_are_the_mean_squared_difference(x):
    q = from_range(-1, 1.5, bits=4, symmetric=False)
    off = (dequantize(quantize_tensor(x, q), q) - x).square().mean().item()
    parts = error(x, q)
    assert parts.total == pytest.approx(off)
    low, high = dequantize(torch.tensor([q.low, q.high]).byte(), q)
    far = (x < low - q.scale / 2) | (x > high + q.scale / 2)
    expected = torch.where(x < 0, low - x, x - high)[far].square().sum() / x.numel()
    assert parts.clipping == pytest.approx(expected.item(), rel=1e-5)


# Products


def int8(*shape):
    return torch.randint(-128, 128, shape, dtype=torch.int8)


def uint8(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


def test_products_are_pytorchs():
    torch.manual_seed(0)
    x, w = int8(32, 64), int8(64, 16)
    assert torch.equal(int_matmul(x, w), torch._int_mm(x, w))


@pytest.mark.parametrize("make", [int8, uint8])
@pytest.mark.parametrize("w_zero", [0, 3, "columns"])
def test_products_with_zero_points_are_onnx_runtimes(make, w_zero):
    torch.manual_seed(0)
    x, w, x_zero = make(5, 40), int8(40, 7), make(1)[0]
    w_zero = int8(7) if w_zero == "columns" else torch.tensor(w_zero, dtype=torch.int8)
    ours = int_matmul(x, w, x_zero=x_zero.int(), w_zero=w_zero.int())
    inputs = {"x": x, "w": w, "x_zero": x_zero, "w_zero": w_zero}
    inputs = {name: tensor.numpy() for name, tensor in inputs.items()}
    (theirs,) = run_node("MatMulInteger", inputs, ["y"], [TensorProto.INT32])
    assert ours.dtype == torch.int32
    np.testing.assert_array_equal(ours.numpy(), theirs)


def test_a_zero_point_per_row_and_a_batch():
    torch.manual_seed(0)
    x, w, zeros = uint8(2, 3, 8), int8(8, 4), torch.randint(0, 256, (2, 3, 1))
    slow = (x.long() - zeros) @ w.long()
    assert torch.equal(int_matmul(x, w, x_zero=zeros.int()).long(), slow)


def test_the_largest_products_fit():
    x = torch.full((1, 33000), 255, dtype=torch.uint8)
    assert int_matmul(x, x.T).item() == 33000 * 255**2


def test_a_product_of_integers_is_that_of_the_numbers_they_stand_for(x):
    w = torch.randn(16, 5)
    qx, qw = affine(x, symmetric=False), affine(w, symmetric=True, dim=1)
    xq, wq = quantize_tensor(x, qx), quantize_tensor(w, qw)
    product = int_matmul(xq, wq, x_zero=qx.zero_point) * (qx.scale * qw.scale)
    torch.testing.assert_close(product, dequantize(xq, qx) @ dequantize(wq, qw))


# Bad input


@pytest.mark.parametrize("bits", [1, 9, 0, -8, 4.5])
def test_other_bits_are_refused(x, bits):
    with pytest.raises(DataError, match="2 to 8"):
        affine(x, bits=bits, symmetric=True)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(x, bad):
    x[2, 3] = bad
    with pytest.raises(DataError, match="not finite"):
        affine(x, symmetric=True)


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((0, 4), {}, "no number"),
        ((4, 6), {"group_size": 4}, "do not fill"),
        ((4, 6), {"group_size": 0}, "do not fill"),
        ((), {"group_size": 1}, "do not fill"),
        ((4, 6), {"group_size": 2, "dim": 0}, "not both"),
        ((4, 6), {"dim": 2}, "no dimension 2"),
        ((4, 6), {"dim": -3}, "no dimension -3"),
        ((4, 6), {"dim": 1.5}, "no dimension 1.5"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shape, options, words):
    with pytest.raises(DataError, match=words):
        affine(torch.ones(shape), symmetric=True, **options)


def test_a_range_the_wrong_way_round_is_refused():
    with pytest.raises(DataError, match="above its end"):
        from_range(1.0, -1.0, symmetric=True)


def test_products_of_other_types_and_shapes_are_refused():
    with pytest.raises(DataError, match="8-bit integers"):
        int_matmul(torch.ones(2, 3), int8(3, 2))
    with pytest.raises(DataError, match="does not exist"):
        int_matmul(int8(2, 3), int8(2, 3))


def test_parameters_of_groups_need_a_tensor_of_their_groups(x):
    q = affine(x, symmetric=True, group_size=4)
    assert isinstance(q, QParams)
    with pytest.raises(DataError, match="groups"):
        quantize_tensor(torch.ones(6, 15), q)
