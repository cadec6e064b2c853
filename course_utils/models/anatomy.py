"""What a model is made of: its parameters and its arithmetic, part by part, without its weights.

A configuration is enough. The model is built on torch's *meta* device, where tensors have a shape
and no content: BERT-large takes no memory and nothing is downloaded.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping

import torch
from torch import nn
from transformers import (
    AutoModel,
    BertConfig,
    DistilBertConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from course_utils.errors import ModelError

PARTS = (
    "word embeddings",
    "position embeddings",
    "type embeddings",
    "embedding norm",
    "attention",
    "feed-forward",
    "layer norms",
    "pooler",
    "head",
    "other",
)
ARITHMETIC = (
    "embeddings",
    "attention projections",
    "attention scores",
    "feed-forward",
    "pooler",
    "head",
    "other",
)
# How transformers' encoders name their parts; the first that is found decides.
_NAMES = {
    "word embeddings": r"(word|tok)_embeddings|wte",
    "position embeddings": r"position_embeddings|wpe",
    "type embeddings": r"token_type_embeddings",
    "pooler": r"pooler",
    "attention": r"attention|attn",
    "feed-forward": r"intermediate|ffn|mlp|layer\.\d+\.output",
}
# Families whose attention is softmax(Q Kᵀ / √d) V and nothing more, and whose positions are BERT's.
_LIKE_BERT = ("albert", "bert", "compact_bert", "distilbert", "electra")
# Where embeddings are factorised, the second factor is a matrix product.
_ARITHMETIC_OF = {"word embeddings": "embeddings", "attention": "attention projections"}


def well_known() -> dict[str, PreTrainedConfig]:
    """The configurations of four encoders by name, as their authors published them."""
    return {
        "BERT-large": BertConfig(
            hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
        ),
        "BERT-base": BertConfig(),
        "DistilBERT": DistilBertConfig(),
        "MiniLM": BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536),
    }


def skeleton(config: PreTrainedConfig, *, kind: type = AutoModel) -> PreTrainedModel:
    """The model of a configuration on the meta device: shapes without content, in eval mode.

    `kind` is one of transformers' Auto classes: AutoModel is the encoder alone,
    AutoModelForMaskedLM has the head that guesses words. Raises `ModelError` for what is no
    configuration, or one of which no model can be built.
    """
    if not isinstance(config, PreTrainedConfig):
        raise ModelError(
            f"A {type(config).__name__} where a configuration is needed.",
            do="Give BertConfig(…), model.config or AutoConfig.from_pretrained(folder).",
        )
    try:
        with torch.device("meta"):
            config = copy.deepcopy(config)  # from_config writes the kind of attention into it
            return kind.from_config(config, attn_implementation="eager").eval()
    except (ValueError, TypeError, RuntimeError) as error:
        raise ModelError(
            f"No model can be built of this {type(config).__name__}: {str(error).splitlines()[0]}",
            do="Look at the sizes in the configuration.",
        ) from error


def count(config: PreTrainedConfig, *, kind: type = AutoModel) -> dict[str, int]:
    """How many parameters each part has, in the order of `PARTS`; together, all of the model's.

    Every parameter is in one part: one that two parts share, as BERT's word embeddings and the
    decoder of its masked-language head do, is counted where it stands first. "head" is all that the
    encoder alone lacks. Raises `ModelError` as `skeleton` does.
    """
    model = skeleton(config, kind=kind)
    counts = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        counts[_part(model, name.rpartition(".")[0])] += parameter.numel()
    return counts


def flops(config: PreTrainedConfig, length: int, *, kind: type = AutoModel) -> dict[str, int]:
    """How many floating-point operations one text of `length` tokens takes, by part.

    The convention: a multiplication and the addition after it are 2 operations, and matrix products
    are all that counts, as in `torch.utils.flop_counter`. Embeddings are looked up: 0, unless they
    are factorised. A linear map takes 2 · in · out for each vector it is given: every token, but in
    the pooler [CLS] alone. The scores Q Kᵀ and the sums of the values take 2 · length² · width each
    in every layer, the only part that grows with the square; the width is hidden_size, or in a
    pruned layer that of the heads it has left. Raises `ModelError` when the model has fewer
    positions, or is of a family that differs from BERT in this.
    """
    model = skeleton(config, kind=kind)
    if config.model_type not in _LIKE_BERT:
        raise ModelError(
            f"The operations of the family {config.model_type} are not counted here.",
            do=f"Its attention or its positions differ from BERT's; take {', '.join(_LIKE_BERT)}.",
        )
    if not isinstance(length, int) or not 1 <= length <= config.max_position_embeddings:
        raise ModelError(
            f"A text of {length} tokens does not fit this model.",
            do=f"Take a length of 1 to {config.max_position_embeddings}, its positions.",
        )
    spent = dict.fromkeys(ARITHMETIC, 0)

    def listen(name: str, linear: nn.Linear) -> None:
        part = _part(model, name)
        part = _ARITHMETIC_OF.get(part, part)

        def add(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            spent[part] += 2 * inputs[0].numel() * linear.out_features

        linear.register_forward_pre_hook(add)

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            listen(name, module)
    with torch.no_grad():
        model(torch.zeros(1, length, dtype=torch.int64, device="meta"))
    spent["attention scores"] = 4 * length**2 * sum(_attention_widths(config))
    return spent


def compare(
    configs: Mapping[str, PreTrainedConfig],
    measure: Callable[[PreTrainedConfig], dict[str, int]] = count,
) -> list[dict[str, object]]:
    """Rows for a table: `model`, `part`, `amount` and `share`, its share of this model's total.

    `measure` is `count`, or the operations at some length: `lambda config: flops(config, 128)`. A
    part that no model has is left out.
    """
    measured = {name: measure(config) for name, config in configs.items()}
    return [
        {"model": name, "part": part, "amount": n, "share": n / sum(amounts.values())}
        for name, amounts in measured.items()
        for part, n in amounts.items()
        if any(other[part] for other in measured.values())
    ]


def _attention_widths(config: PreTrainedConfig) -> list[int]:
    """How many coordinates the queries of each layer have: heads times head size."""
    if config.model_type == "compact_bert":
        return [n_heads * config.head_size for n_heads in config.heads_per_layer]
    return [config.hidden_size] * config.num_hidden_layers


def _part(model: PreTrainedModel, module: str) -> str:
    """The part that a module belongs to, by its name in the model."""
    if model.base_model is not model:
        prefix, _, module = module.partition(".")
        if prefix != model.base_model_prefix:
            return "head"
    if "norm" in type(model.base_model.get_submodule(module)).__name__.lower():
        return "embedding norm" if module.startswith("embeddings") else "layer norms"
    for part, pattern in _NAMES.items():
        if re.search(pattern, module):
            return part
    return "other"
