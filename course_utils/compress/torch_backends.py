"""Quantized models that PyTorch itself runs: half precision, torch.ao while it lasts, and torchao.

Each function returns a new model and leaves the old one as it was.
"""

from __future__ import annotations

import copy
import io
import warnings

import torch
from torch import nn
from transformers import PreTrainedModel

from course_utils.errors import ModelError

GROUP = 32  # weights that share a scale when they have 4 bits


def half(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The model in bfloat16 or float16.

    Raises `ModelError` for a weight too large for the type, and for NaN and infinity.
    """
    new = copy.deepcopy(model).to(dtype)
    for name, weight in new.named_parameters():
        if not model.get_parameter(name).isfinite().all():
            raise ModelError(
                f"{name} holds NaN or infinity.",
                do="Check where the model comes from: its training may have diverged.",
            )
        if not weight.isfinite().all():
            raise ModelError(
                f"{name} has numbers beyond {torch.finfo(dtype).max:g}, the largest of {dtype}.",
                do="Take bf16, whose range is that of float32.",
            )
    return new


def torch_ao(model: PreTrainedModel) -> PreTrainedModel:
    """The model with dynamic int8 linear layers and embedding tables of 8 bits, by torch.ao."""
    from torch.ao.nn.quantized import Embedding
    from torch.ao.quantization import (
        default_dynamic_qconfig,
        float_qparams_weight_only_qconfig,
        quantize_dynamic,
    )

    parts = {nn.Linear: default_dynamic_qconfig, nn.Embedding: float_qparams_weight_only_qconfig}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it will go is why it stands last
        new = quantize_dynamic(copy.deepcopy(model).float().eval(), parts)
    for part in new.modules():
        if isinstance(part, Embedding):  # its kernel takes no view, as BERT's token types are one
            part.register_forward_pre_hook(lambda _, args: (args[0].contiguous(),))
    return new


def torchao(model: PreTrainedModel, *, bits: int) -> PreTrainedModel:
    """The model with weights of 8 bits (and dynamic int8 inputs) or of 4 bits, by torchao.

    Embedding tables have 8 bits, a scale per row.
    """
    from torchao.quantization import (
        Int8DynamicActivationInt8WeightConfig,
        IntxWeightOnlyConfig,
        quantize_,
    )
    from torchao.quantization.granularity import PerAxis, PerGroup

    linear = Int8DynamicActivationInt8WeightConfig()
    if bits == 4:
        linear = IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(GROUP))
    new = copy.deepcopy(model).float().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_(new, linear, lambda part, _: isinstance(part, nn.Linear))
        rows = IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0))
        quantize_(new, rows, lambda part, _: isinstance(part, nn.Embedding))
    return new


def saved_mb(model: nn.Module) -> float:
    """10^6 bytes of the weights as `torch.save` would write them."""
    content = io.BytesIO()
    torch.save(model.state_dict(), content)
    return len(content.getvalue()) / 1e6
