"""What the linear layers of a BERT are given when it reads texts: the second moments."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from course_utils.compress.reading import batches, need_readable
from course_utils.data.encoding import EncodedTexts, pad
from course_utils.errors import ModelError
from course_utils.models.compact_bert import Factorised, FactorisedEmbedding


def linears(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The linear layers in the layers of an encoder, by name, that are not factorised."""
    return {name: layer for name, layer in _all_linears(model).items() if ".layer." in name}


@torch.no_grad()
def input_moments(
    model: PreTrainedModel,
    texts: EncodedTexts,
    *,
    names: Iterable[str] | None = None,
    batch_size: int = 32,
) -> dict[str, Tensor]:
    """For each linear layer the mean (in, in) of x xᵀ over what it is given, as float64.

    `names` are those of `linears(model)` if left out. Every token counts alike, padding does not.
    The model is not touched: a copy of it reads the texts, in eval mode and float32. Raises
    `ModelError` for a layer that it has not, and `DataError` for no text, one that is empty or
    longer than the model reads, ids of another vocabulary, and less than one text at a time.
    """
    need_readable(model, texts)
    model = copy.deepcopy(model).eval().float()
    layers = linears(model) if names is None else named_linears(model, names)
    sums, counts = {name: 0.0 for name in layers}, Counter()

    def add(name: str, x: Tensor) -> None:
        x = x[batch["attention_mask"].bool()] if x.dim() == 3 else x  # (N, in): tokens, or [CLS]
        x = x.double()
        sums[name] += x.T @ x
        counts[name] += len(x)

    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, given, name=name: add(name, given[0]))
    for rows in batches(sorted(texts.input_ids, key=len), batch_size):
        batch = pad(rows, model.config.pad_token_id)
        batch = {key: tensor.to(model.device) for key, tensor in batch.items()}
        model(**batch)
    return {name: total / counts[name] for name, total in sums.items()}


def _all_linears(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """All linear layers, by the name they have in a configuration, but not the thin ones."""
    thin = {
        part
        for module in model.modules()
        if isinstance(module, Factorised | FactorisedEmbedding)
        for part in module.children()
    }
    return {
        f"{config_prefix(model)}{name}": module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module not in thin
    }


def config_prefix(model: PreTrainedModel) -> str:
    """What names have in a configuration and not in the model itself: an encoder without a head."""
    return f"{model.base_model_prefix}." if model is model.base_model else ""


def named_linears(model: PreTrainedModel, names: Iterable[str]) -> dict[str, nn.Linear]:
    """The linear layers of these names; raises `ModelError` for one that is not there."""
    layers, names = _all_linears(model), list(names)
    if missing := [name for name in names if name not in layers]:
        raise ModelError(
            f"The model has no linear layer {missing[0]!r}.", do="See linears(model) for the names."
        )
    return {name: layers[name] for name in names}
