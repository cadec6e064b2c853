"""Zeros in the place of single weights, and what they are worth.

A zero in a dense tensor is stored and multiplied like any other number. What shrinks is the file
after it was compressed, and no more.
"""

from __future__ import annotations

import copy
import zlib

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from course_utils.compress.amounts import number
from course_utils.errors import ModelError
from course_utils.models.compact_bert import layers_of


def zero_smallest(
    model: PreTrainedModel, share: float, *, per_matrix: bool = False
) -> PreTrainedModel:
    """A copy of a BERT with zeros for this share of the weights in its layers: the smallest ones.

    Only matrices count, no biases and norms. The smallest are sought among all of them together, or
    with `per_matrix` in each matrix by itself. Han et al. 2015, "Learning both weights and
    connections". Raises `ModelError` for a share outside [0, 1), and for another family.
    """
    if not 0 <= number(share) < 1:
        raise ModelError(
            f"A share of {share} of the weights cannot be zero.", do="Take 0 up to, not with, 1."
        )
    model = copy.deepcopy(model)
    matrices = _matrices(model)
    for group in ([m] for m in matrices) if per_matrix else [matrices]:
        sizes = torch.cat([m.detach().flatten() for m in group]).abs().float()
        n = round(share * len(sizes))
        gone = torch.zeros(len(sizes), dtype=torch.bool)
        last = min(n, len(sizes) - 1)  # a share near enough to 1 is all of them
        gone[np.argpartition(sizes.cpu().numpy(), last)[:n]] = True  # exactly n, whatever is equal
        _set_to_zero(group, gone)
    return model


def two_of_four(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a BERT in whose layers, of any 4 neighbours in a row, the 2 smallest are zero.

    GPUs since NVIDIA's Ampere have a kernel for this pattern, which no CPU has (Mishra et al. 2021,
    "Accelerating sparse deep neural networks"). Raises `ModelError` for rows whose length is no
    multiple of 4, and for another family.
    """
    model = copy.deepcopy(model)
    matrices = _matrices(model)
    for matrix in matrices:
        if matrix.shape[1] % 4:
            raise ModelError(
                f"Rows of {matrix.shape[1]} weights do not fall into fours.",
                do="Keep a multiple of 4 neurons and hidden coordinates.",
            )
        fours = matrix.detach().abs().float().view(-1, 4)
        smallest = fours.sort(dim=1, stable=True).indices[:, :2]  # of equals the first
        gone = torch.zeros_like(fours, dtype=torch.bool).scatter_(1, smallest, True)
        _set_to_zero([matrix], gone.flatten())
    return model


def share_of_zeros(model: PreTrainedModel) -> float:
    """The share of zeros among the weights in a BERT's layers, without biases and norms."""
    matrices = _matrices(model)
    return sum(int((m == 0).sum()) for m in matrices) / sum(m.numel() for m in matrices)


def compressed_size_mb(model: nn.Module) -> float:
    """10^6 bytes of a model's parameters after deflate, as in a zip file; shared ones once."""
    return sum(len(zlib.compress(_bytes(p))) for p in model.parameters()) / 1e6


def _matrices(model: PreTrainedModel) -> list[nn.Parameter]:
    """The weights of the linear layers in a BERT's layers."""
    return [m.weight for m in layers_of(model).modules() if isinstance(m, nn.Linear)]


@torch.no_grad()
def _set_to_zero(matrices: list[nn.Parameter], gone: Tensor) -> None:
    """Nothing; the matrices, laid end to end, are zero where `gone` says so."""
    for matrix, part in zip(matrices, gone.split([m.numel() for m in matrices]), strict=True):
        matrix[part.view_as(matrix).to(matrix.device)] = 0


def _bytes(parameter: nn.Parameter) -> bytes:
    return parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
