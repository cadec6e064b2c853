"""A model built anew with other sizes, from weights that were cut to them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from course_utils.errors import ModelError


def weight_shapes(kind: type[PreTrainedModel], config: PreTrainedConfig) -> dict[str, torch.Size]:
    """The shape of every weight, by name, of a model of this class with this configuration."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in kind(config).state_dict().items()}


def need_fit(model: PreTrainedModel) -> None:
    """Nothing; raises `ModelError` unless the weights are those that the configuration asks for."""
    expected, weights = weight_shapes(type(model), model.config), model.state_dict()
    for name in expected | weights:
        shape = getattr(weights.get(name), "shape", None)
        if shape != expected.get(name):
            raise ModelError(
                f"The weights of this {type(model).__name__} do not fit its configuration: look at "
                f"{name}. It should be {_words(expected.get(name))}; {name} is {_words(shape)}.",
                do="Take a model as from_pretrained gives it. Cut first and quantize last, and "
                "prune with course_utils.compress.pruning: it writes the new sizes into the "
                "configuration.",
            )


def with_weights(
    kind: type[PreTrainedModel],
    config: PreTrainedConfig,
    weights: Mapping[str, Tensor],
    *,
    like: PreTrainedModel,
) -> PreTrainedModel:
    """A new model of this class with copies of these weights, all that `config` asks for.

    It has the data type, the device and the mode (train or eval) of `like`.
    """
    weights = {name: tensor.detach().clone() for name, tensor in weights.items()}
    # With a state and no path nothing is read from a disk, and nothing is drawn at random.
    new = kind.from_pretrained(None, config=config, state_dict=weights, dtype=like.dtype)
    return new.to(like.device).train(like.training)


def _words(shape: torch.Size | None) -> str:
    return "absent" if shape is None else str(tuple(shape))
