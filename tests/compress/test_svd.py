"""Factors are the best of their rank, on the weight or on its inputs; a rank saves what is said."""

from __future__ import annotations

import pytest
import torch

from course_utils.compress.svd import (
    break_even_rank,
    energy_rank,
    low_rank,
    saves,
    spectrum,
)
from course_utils.errors import ModelError

SHAPES = [(6, 6), (10, 4), (4, 10)]


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moment(x: torch.Tensor) -> torch.Tensor:
    return x.T @ x / len(x)


def output_error(x: torch.Tensor, weight: torch.Tensor, other: torch.Tensor) -> float:
    """The mean over inputs (N, in) of the squared difference of two layers' outputs."""
    return float((x.double() @ (weight - other).double().T).square().sum(1).mean())


def lopsided(n: int, width: int) -> torch.Tensor:
    """Inputs (N, in) that are large in some directions and small in others, with a mean."""
    scales = torch.logspace(1, -1, width)
    return ((some(n, width, seed=1) * scales) @ some(width, width, seed=2) + 0.5).double()


# One weight


@pytest.mark.parametrize("shape", SHAPES)
def test_the_spectrum_is_that_of_the_eigenvalues(shape):
    weight = some(*shape)
    values = spectrum(weight)
    assert values.shape == (min(shape),)
    eigenvalues = torch.linalg.eigvalsh((weight @ weight.T).double()).flip(0)[: min(shape)]
    torch.testing.assert_close(values.square(), eigenvalues, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 3, 4])
def test_without_inputs_the_factors_are_the_truncated_svd(shape, rank):
    weight = some(*shape)
    down, up = low_rank(weight, rank)
    assert (down.shape, up.shape) == ((rank, shape[1]), (shape[0], rank))
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    expected = sum(s[k] * torch.outer(u[:, k], v[k]) for k in range(rank))
    torch.testing.assert_close(up @ down, expected, rtol=1e-5, atol=1e-5)
    left_out = spectrum(weight)[rank:].square().sum()
    error = (weight - up @ down).double().square().sum()
    torch.testing.assert_close(error, left_out, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_inputs", [None, 200, 2, 0])
def test_full_rank_is_the_weight_itself_whatever_the_inputs(shape, n_inputs):
    """200 inputs show every direction, 2 only two of them, and none is as good as zeros."""
    weight = some(*shape)
    inputs = None
    if n_inputs is not None:
        x = lopsided(200, shape[1])[:n_inputs]
        inputs = moment(
            torch.cat([x, torch.zeros_like(x[:1]) if n_inputs else torch.zeros(1, shape[1])])
        )
    down, up = low_rank(weight, min(shape), inputs)
    torch.testing.assert_close(up @ down, weight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_no_matrix_of_the_rank_has_less_error_on_the_inputs(shape, rank):
    weight, x = some(*shape), lopsided(300, shape[1])
    factors = low_rank(weight, rank, moment(x))
    error = output_error(x, weight, factors.up @ factors.down)

    outputs = x @ weight.double().T  # the least by principal components of the outputs
    eigenvalues = torch.linalg.eigvalsh(outputs.T @ outputs / len(x))
    least = float(eigenvalues[: len(eigenvalues) - rank].sum())
    assert error == pytest.approx(least, rel=1e-3)
    left_out = spectrum(weight, moment(x))[rank:].square().sum()
    assert error == pytest.approx(float(left_out), rel=0.02)

    plain = low_rank(weight, rank)
    assert error < 0.9 * output_error(x, weight, plain.up @ plain.down)
    for seed in range(20):
        down = factors.down + 0.01 * some(*factors.down.shape, seed=seed)
        up = factors.up + 0.01 * some(*factors.up.shape, seed=100 + seed)
        assert error < output_error(x, weight, up @ down)


def test_inputs_that_favour_no_direction_choose_as_no_inputs_do():
    weight = some(5, 7)
    plain, weighted = low_rank(weight, 2), low_rank(weight, 2, 3 * torch.eye(7))
    torch.testing.assert_close(weighted.up @ weighted.down, plain.up @ plain.down)
    torch.testing.assert_close(
        spectrum(weight, 4 * torch.eye(7)), 2 * spectrum(weight), rtol=1e-5, atol=0
    )


def test_few_inputs_are_kept_to_the_last_digit():
    weight, x = some(8, 12), some(3, 12, seed=5)
    factors = low_rank(weight, 3, moment(x.double()))
    outputs = x @ weight.T
    torch.testing.assert_close(x @ factors.down.T @ factors.up.T, outputs, rtol=1e-3, atol=1e-3)
    plain = low_rank(weight, 3)
    assert (x @ plain.down.T @ plain.up.T - outputs).abs().max() > 0.1


def test_the_diagonal_will_do_for_inputs_with_one_entry_at_a_time():
    weight, counts = some(4, 6), torch.tensor([9.0, 1, 1, 4, 0, 1])
    whole, short = (low_rank(weight, 2, inputs) for inputs in (counts.diag(), counts))
    torch.testing.assert_close(short.up @ short.down, whole.up @ whole.down)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_factors_have_the_data_type_of_the_weight(dtype):
    factors = low_rank(some(6, 4).to(dtype), 4)
    assert {tensor.dtype for tensor in factors} == {dtype}
    assert all(tensor.is_contiguous() for tensor in factors)


@pytest.mark.parametrize("rank", [0, -1, 5])
def test_an_impossible_rank_is_refused(rank):
    with pytest.raises(ModelError, match=f"6 x 4 has no rank {rank}"):
        low_rank(some(6, 4), rank)


def test_a_weight_that_diverged_is_refused():
    weight = some(3, 3)
    weight[0, 0] = torch.nan
    for call in (lambda: spectrum(weight), lambda: low_rank(some(3, 3), 1, weight)):
        with pytest.raises(ModelError, match="NaN"):
            call()
    with pytest.raises(ModelError, match="no second moment"):
        spectrum(some(3, 3), -torch.eye(3))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (-torch.ones(4), "negative square"),
        (torch.tensor([-1.0, 1, 1, 1]), "negative square"),
        (-0.5 * torch.eye(4), "negative square"),
        (torch.ones(6), r"\(6,\) are no second moment for 4 inputs"),
        (torch.eye(6), r"\(6, 6\) are no second moment for 4 inputs"),
        (torch.ones(2, 4, 4), "no second moment for 4 inputs"),
    ],
)
def test_inputs_that_are_no_second_moment_are_refused(inputs, words):
    for call in (spectrum, lambda weight, inputs: low_rank(weight, 2, inputs)):
        with pytest.raises(ModelError, match=words):
            call(some(6, 4), inputs)


# Which rank


@pytest.mark.parametrize(
    ("share", "rank"), [(0.01, 1), (0.5, 1), (0.64, 1), (0.65, 2), (0.99, 2), (0.995, 3), (1, 3)]
)
def test_the_energy_rank_is_the_first_that_holds_the_share(share, rank):
    values = torch.tensor([8.0, 5.95, 0.77])  # squares 64, 35.4, 0.6
    assert energy_rank(values, share) == rank


def test_a_weight_of_zeros_has_rank_one():
    assert energy_rank(torch.zeros(4), 0.9) == 1


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ModelError, match="above 0 and at most 1"):
        energy_rank(torch.ones(4), share)


@pytest.mark.parametrize(("m", "n", "rank"), [(768, 768, 384), (768, 3072, 614.4), (3, 6, 2)])
def test_at_the_break_even_rank_nothing_is_saved(m, n, rank):
    assert break_even_rank(m, n) == break_even_rank(n, m) == rank
    below, above = int(rank - 0.5), int(rank) + 1
    assert saves(m, n, below) == m * n - sum(f.numel() for f in low_rank(torch.ones(m, n), below))
    assert saves(m, n, below) > 0 > saves(m, n, above)
