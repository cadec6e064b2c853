"""Low rank in a model: its linear layers and its word table as two thin matrices each.

`svd` says which two, `moments` what a layer is given when a model reads texts, `ranks` which rank
it gets; here is the ordinary smaller model that comes of it.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from itertools import chain

import torch
from transformers import PreTrainedModel

from course_utils.compress.moments import (
    config_prefix,
    input_moments,
    linears,
    named_linears,
)
from course_utils.compress.ranks import ranks_by_share
from course_utils.compress.reading import need_readable
from course_utils.compress.svd import low_rank, need_rank, need_share
from course_utils.data.encoding import EncodedTexts
from course_utils.errors import ModelError
from course_utils.models.compact_bert import compact
from course_utils.models.rebuild import with_weights

_WORDS = "bert.embeddings.word_embeddings"


def factorise(
    model: PreTrainedModel,
    ranks: Mapping[str, int] | float,
    *,
    texts: EncodedTexts | None = None,
) -> PreTrainedModel:
    """A new compact model in which linear layers are two thin ones; all else is a copy.

    `ranks` maps names of layers, as `linears` has them, to ranks; `saves` says what one is worth.
    Or it is the share of its energy that each layer of the encoder keeps (see `energy_rank`), and
    those that would not become smaller stay whole. With `texts`, the layers lose least on what they
    are given when the old model reads these (see `low_rank`); energy then is that of their outputs.

    Raises `ModelError` for a model that cannot be made compact, for a layer that it has not, that
    shares its weight with another or is factorised already, and for a rank that it cannot have;
    `DataError` for texts that the model cannot read.
    """
    base = compact(model)
    if isinstance(ranks, Mapping):
        _check_ranks(base, ranks)
        moments = input_moments(base, texts, names=ranks) if texts is not None else {}
    else:
        need_share(ranks)
        moments = input_moments(base, texts) if texts is not None else {}
        ranks = ranks_by_share(linears(base), moments, ranks)
    config, weights = copy.deepcopy(base.config), base.state_dict()
    for name, rank in ranks.items():
        own = name.removeprefix(config_prefix(base))
        factors = low_rank(weights.pop(f"{own}.weight"), rank, moments.get(name))
        weights[f"{own}.down.weight"], weights[f"{own}.up.weight"] = factors
        if f"{own}.bias" in weights:
            weights[f"{own}.up.bias"] = weights.pop(f"{own}.bias")
    config.ranks = config.ranks | {name: int(rank) for name, rank in ranks.items()}
    return with_weights(type(base), config, weights, like=base)


def factorise_embeddings(
    model: PreTrainedModel, rank: int, *, texts: EncodedTexts | None = None
) -> PreTrainedModel:
    """A new compact model whose word embeddings are a table (V, rank) times a matrix (rank, H).

    With `texts`, a token counts by how often it occurs in them, and once more: give many, for what
    the tokens of a few gain is lost by all others. The decoder of a masked-language model, which
    shared the table, keeps the old one to itself. After Lan et al. 2020 (ALBERT), section 3.1.
    Raises `ModelError` for a rank above H, for embeddings that are factorised already, and for a
    model that cannot be made compact; `DataError` for texts that the model cannot read.
    """
    base = compact(model)
    if base.config.embedding_rank is not None:
        raise ModelError(
            f"The word embeddings have rank {base.config.embedding_rank} already.",
            do="Factorise the model from before, with the rank that you want.",
        )
    counts = None
    if texts is not None:
        need_readable(base, texts)
        ids = torch.tensor(list(chain.from_iterable(texts.input_ids)), device=base.device)
        counts = torch.bincount(ids, minlength=base.config.vocab_size) + 1.0  # (V,)
    config, weights = copy.deepcopy(base.config), base.state_dict()
    name = _WORDS.removeprefix(config_prefix(base))
    factors = low_rank(weights.pop(f"{name}.weight").T, rank, counts)
    weights[f"{name}.table.weight"] = factors.down.T.contiguous()
    weights[f"{name}.up.weight"] = factors.up
    config.embedding_rank = int(rank)
    return with_weights(type(base), config, weights, like=base)


def _check_ranks(model: PreTrainedModel, ranks: Mapping[str, int]) -> None:
    """Nothing; raises `ModelError` unless every layer is there, whole, and can have its rank."""
    for name in ranks.keys() & model.config.ranks.keys():
        raise ModelError(
            f"{name} is factorised already, with rank {model.config.ranks[name]}.",
            do="Factorise the model from before, with the rank that you want.",
        )
    shared = Counter(id(tensor) for tensor in model.state_dict(keep_vars=True).values())
    for name, layer in named_linears(model, ranks).items():
        if shared[id(layer.weight)] > 1:
            raise ModelError(
                f"{name} shares its weight with another module and would no longer.",
                do="Leave it out; factorise_embeddings(model, rank) makes the word table thinner.",
            )
        need_rank(layer.weight, ranks[name], where=name)
