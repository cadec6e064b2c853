"""A model whose linear layers and embedding tables are 8-bit integers, in plain PyTorch.

It shows what a library does, number by number, and is slower than the library and than float32.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from course_utils.compress.quantization import (
    QParams,
    affine,
    dequantize,
    from_range,
    int_matmul,
    quantize_tensor,
)
from course_utils.errors import ModelError

Ranges = Mapping[str, tuple[float, float]]  # of what goes into each linear layer, by its name


class Int8Linear(nn.Module):
    """A linear layer of int8 weights, one scale per output; its inputs become uint8 on the way.

    Without `input_range` an input's scale is taken from the batch at hand (dynamic), else from the
    range that was seen before (static).
    """

    def __init__(self, linear: nn.Linear, input_range: tuple[float, float] | None = None):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        q = affine(linear.weight, symmetric=True, dim=0)
        self.register_buffer("weight", quantize_tensor(linear.weight.detach(), q))  # (M, K)
        self.register_buffer("scale", q.scale[:, 0])  # (M,)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())
        self.input_range = input_range

    def forward(self, x: Tensor) -> Tensor:
        q = self._params(x)
        products = int_matmul(quantize_tensor(x, q), self.weight.T, x_zero=q.zero_point)
        y = products * (q.scale * self.scale)  # (..., M)
        return y if self.bias is None else y + self.bias

    def _params(self, x: Tensor) -> QParams:
        if self.input_range is None:
            return affine(x, symmetric=False)
        low, high = torch.tensor(self.input_range, device=x.device)
        return from_range(low, high, symmetric=False)


class Int8Embedding(nn.Module):
    """An embedding table of int8 numbers with one scale per row."""

    def __init__(self, embedding: nn.Embedding):
        super().__init__()
        self.num_embeddings, self.embedding_dim = embedding.weight.shape
        q = affine(embedding.weight, symmetric=True, dim=0)
        self.register_buffer("weight", quantize_tensor(embedding.weight.detach(), q))  # (V, H)
        self.register_buffer("scale", q.scale)  # (V, 1)

    def forward(self, input_ids: Tensor) -> Tensor:
        scale = self.scale[input_ids]  # (B, S, 1)
        return dequantize(self.weight[input_ids], QParams(scale, torch.zeros_like(scale)))


def int8_model(model: PreTrainedModel, ranges: Ranges | None = None) -> PreTrainedModel:
    """A new model with `Int8Linear` and `Int8Embedding` in the place of each layer and table.

    With `ranges` it is static, without them dynamic. Raises `ModelError` for a model that is not
    plain any more, and when a linear layer has no range. A layer in several places stays one, and
    its range goes by the first of its names.
    """
    need_plain(model)
    if ranges is not None:
        need_ranges(model, ranges)
    new = copy.deepcopy(model).float().eval()
    made: dict[nn.Module, nn.Module] = {}
    for name, part in new.named_modules():
        if isinstance(part, nn.Linear):
            made[part] = Int8Linear(part, ranges and ranges[name])
        elif isinstance(part, nn.Embedding):
            made[part] = Int8Embedding(part)
    for name, part in list(new.named_modules(remove_duplicate=False)):  # every place it is in
        if part in made:
            new.set_submodule(name, made[part])
    return new


def need_plain(model: nn.Module) -> None:
    """Nothing; raises `ModelError` if a layer is quantized already, or prepared for it."""
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            # A quantized weight is a class of its own in torchao; a prepared layer is one here.
            plain = type(part) in (nn.Linear, nn.Embedding) and type(part.weight) is nn.Parameter
        else:
            integers = (t.dtype in (torch.int8, torch.uint8) for t in part.buffers(recurse=False))
            plain = not any(integers) and not hasattr(part, "_packed_params")  # as torch.ao's
        if not plain:
            raise ModelError(
                f"This model is quantized already, or prepared for it: see its {name}.",
                do="Take the model it was made from.",
            )


def need_ranges(model: nn.Module, ranges: Ranges) -> None:
    """Nothing; raises `ModelError` unless every linear layer has a range: low and high."""
    given = ranges if isinstance(ranges, Mapping) else {}
    names = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    if missing := [name for name in names if not _is_range(given.get(name))]:
        raise ModelError(
            f"{len(missing)} linear layers have no range, two finite numbers; the first of them is "
            f"{missing[0]}.",
            do="Give {name: min_max(seen) for name, seen in observe(model, texts).items()}.",
        )


def _is_range(value: Any) -> bool:
    """Whether these are two finite numbers that do not change places."""
    match value:
        case [Real() as low, Real() as high]:
            return -math.inf < low <= high < math.inf
    return False
