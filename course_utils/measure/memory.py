"""What training has to remember between the forward and the backward pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def kept_for_backward(module: nn.Module, *inputs: Tensor) -> list[tuple[torch.Size, int]]:
    """The shape and the bytes of each tensor that autograd keeps for the gradient of `module`.

    A tensor that several operations keep counts once, and weights do not count: they are there
    anyway. `inputs` go into `module`, which is run once.
    """
    weights = {_place(parameter) for parameter in module.parameters()}
    kept: dict[int, tuple[torch.Size, int]] = {}

    def note(tensor: Tensor) -> Tensor:
        if _place(tensor) not in weights:
            kept.setdefault(_place(tensor), (tensor.shape, tensor.untyped_storage().nbytes()))
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = module(*inputs)
    del result  # until here it held all that was kept: no memory was used twice
    return list(kept.values())


def _place(tensor: Tensor) -> int:
    """Where a tensor's memory begins: views of one tensor share it."""
    return tensor.untyped_storage().data_ptr()
