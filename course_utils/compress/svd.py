"""A weight as the product of two thin ones: what its singular values say, and the best factors.

The best matrix of rank r is what a singular value decomposition keeps of its r largest values
(Eckart and Young 1936). Best for whom? For inputs that point everywhere alike. A layer's real
inputs do not: with their second moment at hand we choose the directions that carry most of the
layer's *outputs*, as in Chen et al. 2021 (DRONE), section 3, and Wang et al. 2024 (SVD-LLM),
section 3.1.
"""

from __future__ import annotations

from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

from course_utils.compress.amounts import number
from course_utils.errors import ModelError

# Of the mean square of an input: a direction that no text showed counts this much, so that none is
# lost where the rank is high enough to keep them all.
RIDGE = 1e-6


class Factors(NamedTuple):
    """Two thin matrices whose product stands for a weight (out, in): x -> up @ (down @ x)."""

    down: Tensor  # (r, in)
    up: Tensor  # (out, r), with orthonormal columns


@torch.no_grad()
def spectrum(weight: Tensor, inputs: Tensor | None = None) -> Tensor:
    """The singular values (min(out, in),) of a weight (out, in), largest first, as float64.

    With `inputs`, see `low_rank`, they are those of the weight as its inputs meet it: the squares
    of those that a rank leaves out, added up, are the mean square error of the layer's output.
    Raises `ModelError` as `low_rank` does.
    """
    return torch.linalg.svdvals(_met(weight, inputs))


def energy_rank(singular_values: Tensor, share: float) -> int:
    """The smallest rank whose singular values hold this share of the sum of all squares.

    `singular_values` are (K,), largest first. Raises `ModelError` for a share not in (0, 1].
    """
    need_share(share)
    energy = singular_values.double().square().cumsum(0)  # (K,)
    return int(torch.searchsorted(energy, share * energy[-1])) + 1


def break_even_rank(m: int, n: int) -> float:
    """The rank mn / (m + n) at which two factors have as many numbers as an (m, n) weight.

    Only a rank below it makes the layer smaller: of a square weight, one below half its width.
    """
    return m * n / (m + n)


def saves(m: int, n: int, rank: int) -> int:
    """How many numbers fewer the factors of that rank have than the (m, n) weight; may be < 0."""
    return m * n - rank * (m + n)


@torch.no_grad()
def low_rank(weight: Tensor, rank: int, inputs: Tensor | None = None) -> Factors:
    """The two factors, in the weight's data type, of the best approximation of that rank.

    Without `inputs`, best means the least sum of squared differences from the `weight` (out, in).
    With `inputs` (in, in), the mean of x xᵀ over the layer's inputs x, best means the least mean
    square error of its outputs: no other matrix of this rank has less on those inputs, up to
    `RIDGE`. Where an input has one entry at a time that is not zero, as a token's number has, the
    diagonal (in,) will do. Inputs that leave some directions empty do no harm, for nothing is
    inverted. At rank min(out, in) the product is the weight, up to rounding.

    Raises `ModelError` for a rank that the weight cannot have, for NaN or infinity, and for
    `inputs` that are no second moment.
    """
    need_rank(weight, rank)
    directions, _, _ = torch.linalg.svd(_met(weight, inputs), full_matrices=False)
    up = directions[:, :rank]  # (out, r), where most of the outputs lies
    down = up.T @ weight.double()  # (r, in)
    return Factors(down.to(weight.dtype), up.to(weight.dtype).contiguous())


def need_rank(weight: Tensor, rank: int, *, where: str | None = None) -> None:
    """Nothing; raises `ModelError` unless the rank is a whole number that the weight can have."""
    most = min(weight.shape)
    if not 1 <= number(rank, Integral) <= most:
        raise ModelError(
            f"A weight of {' x '.join(map(str, weight.shape))} has no rank {rank}.",
            where=where,
            do=f"Take 1 to {most}; below {break_even_rank(*weight.shape):.0f} it becomes smaller.",
        )


def need_share(share: float) -> None:
    """Nothing; raises `ModelError` unless the share is above 0 and at most 1."""
    if not 0 < number(share) <= 1:
        raise ModelError(
            f"A share is above 0 and at most 1, not {share}.",
            do="For one rank everywhere, give dict.fromkeys(linears(model), rank).",
        )


def _met(weight: Tensor, inputs: Tensor | None) -> Tensor:
    """The weight (out, in) times a square root of the inputs' second moment, as float64.

    With M = L Lᵀ, the mean of |D x|² is |D L|² for every difference D of two weights: the best
    matrix of a rank for these inputs is the best one for W L, with L taken back.
    """
    if inputs is None:
        return _finite(weight)
    n = weight.shape[1]
    if inputs.shape not in ((n,), (n, n)):
        raise ModelError(
            f"Inputs of {tuple(inputs.shape)} are no second moment for {n} inputs.",
            do=f"Give the mean of x xᵀ, ({n}, {n}), or its diagonal, ({n},).",
        )
    inputs = _finite(inputs)
    diagonal = inputs if inputs.dim() == 1 else inputs.diagonal()
    ridge = RIDGE * diagonal.mean()
    ridge = ridge if ridge > 0 else torch.ones_like(ridge)  # inputs that are all zero
    if whole := inputs.dim() == 2:
        root, failed = torch.linalg.cholesky_ex(inputs + ridge * torch.eye(n).to(inputs))
    else:
        root, failed = (inputs + ridge).sqrt(), False
    if failed or (diagonal < 0).any():
        raise ModelError(
            "The inputs are no second moment: they have a direction with a negative square.",
            do="Take the mean of x xᵀ in float64, as input_moments does.",
        )
    return _finite(weight) @ root if whole else _finite(weight) * root


def _finite(matrix: Tensor) -> Tensor:
    """The matrix in float64; raises `ModelError` if it holds NaN or infinity."""
    if not matrix.isfinite().all():
        raise ModelError(
            "A weight or its inputs hold NaN or infinity: they have no singular values.",
            do="Check where the model comes from: its training may have diverged.",
        )
    return matrix.double()
