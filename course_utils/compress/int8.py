"""A model whose linear layers and embedding tables are 8-bit integers, in plain PyTorch.

It shows what a library does, number by number, and is slower than the library and than float32.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

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
    plain any more, and when a linear layer has no range.
    """
    need_plain(model)
    need_ranges(model, ranges)
    new = copy.deepcopy(model).float().eval()
    for parent_name, parent in list(new.named_modules()):
        for name, part in list(parent.named_children()):
            if isinstance(part, nn.Linear):
                full = f"{parent_name}.{name}".removeprefix(".")
                setattr(parent, name, Int8Linear(part, ranges and ranges[full]))
            elif isinstance(part, nn.Embedding):
                setattr(parent, name, Int8Embedding(part))
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


def need_ranges(model: nn.Module, ranges: Ranges | None) -> None:
    """Nothing; raises `ModelError` if ranges are given, but not for every linear layer."""
    names = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    if ranges is not None and (missing := [name for name in names if name not in ranges]):
        raise ModelError(
            f"{len(missing)} linear layers have no range, the first of them {missing[0]}.",
            do="Take the ranges from observe(model, texts) of the same model.",
        )
