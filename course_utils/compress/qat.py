"""Training that knows of the quantization to come: weights that are good on the grid.

In the forward pass every number is rounded to what its integer will stand for; in the backward
pass the rounding, whose gradient is zero almost everywhere, is left out (the straight-through
estimator: Bengio et al. 2013, "Estimating or propagating gradients through stochastic neurons").
Jacob et al. 2018, section 3; for BERT: Zafrir et al. 2019, "Q8BERT".
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from course_utils.compress.int8 import Ranges, int8_model, need_plain, need_ranges
from course_utils.compress.quantization import (
    QParams,
    affine,
    dequantize,
    from_range,
    on_grid,
    quantize_tensor,
)
from course_utils.errors import ModelError


class _FakeQuant(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, q: QParams) -> Tensor:
        integers = on_grid(x, q).reshape(x.shape)
        ctx.save_for_backward((integers >= q.low) & (integers <= q.high))
        return dequantize(quantize_tensor(x, q), q).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None


def fake_quant(x: Tensor, q: QParams) -> Tensor:
    """`x` rounded to the numbers its integers stand for; still real numbers, in its data type.

    The gradient goes through as if nothing had been rounded, but not to what was clipped: there a
    small step changes nothing.
    """
    return _FakeQuant.apply(x, q)


class QATLinear(nn.Linear):
    """A linear layer that computes as its int8 version will; its weight is still real numbers.

    The weight's scales, one per output, follow it from step to step. The input's range is the one
    of the calibration, which has not seen any padding. Made by `prepare_qat`.
    """

    input_range: tuple[float, float]

    def forward(self, x: Tensor) -> Tensor:
        low, high = torch.tensor(self.input_range, device=x.device)
        x = fake_quant(x, from_range(low, high, symmetric=False))
        weight = fake_quant(self.weight, affine(self.weight, symmetric=True, dim=0))
        return nn.functional.linear(x, weight, self.bias)


class QATEmbedding(nn.Embedding):
    """An embedding table that gives the rows its int8 version will, one scale per row."""

    def forward(self, input_ids: Tensor) -> Tensor:
        rows = super().forward(input_ids)  # (B, S, H)
        peak = rows.detach().abs().amax(-1, keepdim=True)
        return fake_quant(rows, from_range(-peak, peak, symmetric=True))


def prepare_qat(model: PreTrainedModel, ranges: Ranges) -> PreTrainedModel:
    """A new model to be trained on: as the old one, but it computes with the errors of int8.

    `ranges` are those of each linear layer's input, as `calibration_ranges` finds them. What is
    tied in the model stays tied. Raises `ModelError` when a layer has no range, and for a model
    that is quantized or prepared already.
    """
    need_plain(model)
    need_ranges(model, ranges)
    new = copy.deepcopy(model)
    for name, part in new.named_modules():
        if isinstance(part, nn.Linear):
            part.__class__, part.input_range = QATLinear, ranges[name]  # the very same parameters
        elif isinstance(part, nn.Embedding):
            part.__class__ = QATEmbedding
    return new


def ranges_of(model: PreTrainedModel) -> dict[str, tuple[float, float]]:
    """The input ranges of a model made by `prepare_qat`; raises `ModelError` for another one."""
    ranges = {name: m.input_range for name, m in model.named_modules() if isinstance(m, QATLinear)}
    if not ranges:
        raise ModelError("This model was not prepared.", do="Call prepare_qat(model, ranges).")
    return ranges


def without_fake_quant(model: PreTrainedModel) -> PreTrainedModel:
    """A new ordinary model with the weights of a prepared one, to be saved and exported."""
    ranges_of(model)
    new = copy.deepcopy(model)
    for part in new.modules():
        if isinstance(part, QATLinear):
            part.__class__ = nn.Linear
            del part.input_range
        elif isinstance(part, QATEmbedding):
            part.__class__ = nn.Embedding
    return new


def convert(model: PreTrainedModel) -> PreTrainedModel:
    """A new model of int8 layers (`int8_model`), which computes what the prepared one did."""
    return int8_model(without_fake_quant(model), ranges_of(model))
