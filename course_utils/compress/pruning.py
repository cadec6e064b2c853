"""Heads, neurons and coordinates that go, and an ordinary smaller model that stays."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from course_utils.compress.amounts import number
from course_utils.compress.importance import Importance
from course_utils.errors import ModelError
from course_utils.models.compact_bert import compact, layers_of
from course_utils.models.rebuild import weight_shapes, with_weights


class Kept(NamedTuple):
    """The heads and the neurons that stay, by their numbers in each layer, from 0."""

    heads: tuple[tuple[int, ...], ...]
    neurons: tuple[tuple[int, ...], ...]


def keep_most_important(
    importance: Importance, *, heads: float, neurons: float, across_layers: bool = False
) -> Kept:
    """The parts with the highest scores: these shares, from above 0 to 1, of heads and neurons.

    Each layer keeps its share, rounded; with `across_layers` the best of all layers together are
    kept, so that some layers lose more. Every layer keeps its best head and its best neuron, even
    if they are among the last of all. Of equals the first stays. Raises `ModelError` for another
    share, and for a score that is no number.
    """
    shares = {"heads": heads, "neurons": neurons}
    choose = _best_of_all if across_layers else _best_of_each
    for name, share in shares.items():
        if not 0 < number(share) <= 1:
            raise ModelError(
                f"A share of {share} of the {name} cannot be kept.",
                do="Take a share above 0, up to 1 for all of them.",
            )
        if any(scores.isnan().any() for scores in getattr(importance, name)):
            raise ModelError(
                f"A score of the {name} is not a number.",
                do="Look for a loss that is none: too high a learning rate, or float16.",
            )
    return Kept(*(choose(getattr(importance, name), share) for name, share in shares.items()))


def remove(model: PreTrainedModel, kept: Kept) -> PreTrainedModel:
    """A new compact model with the heads and neurons `kept` only: smaller layers, no masks.

    It computes what `masked` does. The given model stays as it was, and may itself be compact, its
    layers factorised. Raises `ModelError` as `compact` does, and when `kept` does not fit the
    model: another number of layers, a layer with nothing left, a part it has not, a part twice.
    """
    model = compact(model)
    weights = model.state_dict()
    for name, dim, rows in _slices(model, kept):
        weights[name] = weights[name].index_select(dim, rows)
    config = copy.deepcopy(model.config)
    config.heads_per_layer = [len(layer) for layer in kept.heads]
    config.neurons_per_layer = [len(layer) for layer in kept.neurons]
    return with_weights(type(model), config, weights, like=model)


def masked(model: PreTrainedModel, kept: Kept) -> PreTrainedModel:
    """A copy of the model, as large as it is, with zeros where `remove` cuts.

    The slow way to the logits of `remove`, and a check of it. Raises `ModelError` as `remove` does.
    """
    model = copy.deepcopy(model)
    weights = model.state_dict()  # which shares its memory with the model
    for name, dim, rows in _slices(model, kept):
        gone = torch.ones(weights[name].shape[dim], dtype=torch.bool, device=model.device)
        gone[rows] = False
        weights[name].index_fill_(dim, gone.nonzero()[:, 0], 0)
    return model


def remove_hidden(model: PreTrainedModel, keep: Iterable[int]) -> PreTrainedModel:
    """A new compact model with these coordinates of the hidden states only, in their old order.

    Embeddings, layers and head are narrower, heads and neurons as many as before. This is a start,
    not a smaller copy: LayerNorm takes its mean and variance over what is left, so that it has to
    be trained. The given model stays as it was. Raises `ModelError` as `compact` does, and for no
    coordinate, one that the model has not, or one that is named twice.
    """
    model = compact(model)
    config = copy.deepcopy(model.config)
    coordinates = _checked(tuple(keep), config.hidden_size, "coordinate", "the hidden states")
    config.hidden_size = len(coordinates)
    shapes = weight_shapes(type(model), config)
    rows = torch.tensor(coordinates, device=model.device)
    weights = model.state_dict()
    for name, tensor in weights.items():
        for dim, (was, now) in enumerate(zip(tensor.shape, shapes[name], strict=True)):
            if was != now:  # only what goes along the hidden states has become shorter
                weights[name] = weights[name].index_select(dim, rows)
    return with_weights(type(model), config, weights, like=model)


def gradual(start: float, end: float, steps: int) -> tuple[float, ...]:
    """The share that is to be gone after each of `steps` rounds: fast at first, then ever slower.

    s(t) = end + (start - end) (1 - t / steps)^3 for t = 1 … steps, so that the last is `end`. Zhu
    and Gupta 2017, "To prune, or not to prune", eq. 1. Raises `ModelError` unless 0 <= start <= end
    < 1 and there is a step.
    """
    if not 0 <= number(start) <= number(end) < 1 <= number(steps, Integral):
        raise ModelError(
            f"There is no schedule from {start} to {end} in {steps} steps.",
            do="Take shares of what goes, 0 <= start <= end < 1, and at least one step.",
        )
    return tuple(end + (start - end) * (1 - t / steps) ** 3 for t in range(1, steps + 1))


def encoder_parameters(model: PreTrainedModel) -> int:
    """The number of parameters in the layers of a BERT: no embeddings, no pooler, no head."""
    return sum(parameter.numel() for parameter in layers_of(model).parameters())


def _best_of_each(scores: Sequence[Tensor], share: float) -> tuple[tuple[int, ...], ...]:
    return tuple(_first(layer, max(1, round(share * len(layer)))) for layer in scores)


def _best_of_all(scores: Sequence[Tensor], share: float) -> tuple[tuple[int, ...], ...]:
    sizes = [len(layer) for layer in scores]
    everything = torch.cat([layer.float() for layer in scores])
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    for start, layer in zip(starts, scores, strict=True):
        everything[start + int(layer.argmax())] = torch.inf  # the best of each stays
    n = max(len(scores), round(share * len(everything)))
    chosen = _first(everything, n)
    return tuple(
        tuple(i - start for i in chosen if start <= i < start + size)
        for start, size in zip(starts, sizes, strict=True)
    )


def _first(scores: Tensor, n: int) -> tuple[int, ...]:
    """The places, in rising order, of the n highest scores; of equals the first."""
    return tuple(sorted(scores.sort(descending=True, stable=True).indices[:n].tolist()))


def _slices(model: PreTrainedModel, kept: Kept) -> list[tuple[str, int, Tensor]]:
    """What of the model's tensors stays: a tensor's name, its dimension, and the numbers in it."""
    layers = layers_of(model)
    if not len(kept.heads) == len(kept.neurons) == len(layers):
        raise ModelError(
            f"Heads of {len(kept.heads)} layers and neurons of {len(kept.neurons)} are to be kept; "
            f"the model has {len(layers)}.",
            do="Rank the parts of this very model.",
        )
    state = model.state_dict()
    prefix = "" if model is model.base_model else f"{model.base_model_prefix}."
    slices = []

    def cut(linear: str, dim: int, rows: Tensor) -> None:
        factor = ("up", "down")[dim]  # of a factorised layer: rows in the one, columns in the other
        name = f"{linear}.{factor}" if f"{linear}.{factor}.weight" in state else linear
        slices.append((f"{name}.weight", dim, rows))
        if dim == 0:
            slices.append((f"{name}.bias", 0, rows))

    for i, (layer, heads, neurons) in enumerate(zip(layers, *kept, strict=True)):
        attention, name = layer.attention.self, f"{prefix}encoder.layer.{i}"
        where, size = f"layer {i}", attention.attention_head_size
        heads = _checked(heads, attention.num_attention_heads, "head", where)
        neurons = _checked(neurons, layer.intermediate.dense.out_features, "neuron", where)
        rows = torch.tensor([h * size + k for h in heads for k in range(size)], device=model.device)
        for linear in ("query", "key", "value"):
            cut(f"{name}.attention.self.{linear}", 0, rows)
        cut(f"{name}.attention.output.dense", 1, rows)
        rows = torch.tensor(neurons, device=model.device)
        cut(f"{name}.intermediate.dense", 0, rows)
        cut(f"{name}.output.dense", 1, rows)
    return slices


def _checked(numbers: Sequence[int], n: int, what: str, where: str) -> list[int]:
    """The numbers, sorted; raises `ModelError` unless they are some of 0 … n - 1, each once."""
    if not numbers:
        raise ModelError(
            f"No {what} of {where} would be left.",
            do=f"Keep at least one {what}; a whole layer goes with student_from_teacher(layers=…).",
        )
    wrong = [i for i in numbers if not isinstance(i, Integral) or not 0 <= i < n]
    if wrong or len(set(numbers)) < len(numbers):
        raise ModelError(
            f"The {what}s {list(numbers)[:8]} of {where} cannot be kept.",
            do=f"Name some of 0 to {n - 1}, each once.",
        )
    return sorted(map(int, numbers))
