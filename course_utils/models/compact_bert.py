"""BERT whose layers may differ in size, or be factorised: what compression leaves behind.

`BertConfig` has one number of heads and one of neurons for all layers. `CompactBertConfig` has one
of each per layer, and the ranks of what is factorised; so a pruned model is saved and loaded as any
other. Importing this module registers it with transformers' Auto classes, which is all that loading
such a folder needs (`TorchClassifier` does it); without that they say that they do not know
"compact_bert".
"""

from __future__ import annotations

import copy

from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
)

from course_utils.errors import ModelError
from course_utils.models.rebuild import need_fit, with_weights


class CompactBertConfig(BertConfig):
    """A BERT's configuration with sizes layer by layer; what is not given is as `BertConfig` says.

    `heads_per_layer` and `neurons_per_layer` have a number, at least 1, for every layer. All heads
    have `head_size`, which need not be hidden_size / num_attention_heads. `ranks` maps the name of
    a linear layer, "bert.encoder.layer.0.output.dense", to the rank of its two factors; with an
    `embedding_rank` the word embeddings are factorised, too (Lan et al. 2020, "ALBERT", section
    3.1). `num_attention_heads` and `intermediate_size` tell what the model was before.
    """

    model_type = "compact_bert"

    heads_per_layer: list[int] | None = None
    neurons_per_layer: list[int] | None = None
    head_size: int | None = None
    ranks: dict[str, int] | None = None
    embedding_rank: int | None = None

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        n_layers = self.num_hidden_layers
        if self.heads_per_layer is None:
            self.heads_per_layer = [self.num_attention_heads] * n_layers
        if self.neurons_per_layer is None:
            self.neurons_per_layer = [self.intermediate_size] * n_layers
        if self.head_size is None:
            self.head_size = self.hidden_size // self.num_attention_heads
        if self.ranks is None:
            self.ranks = {}

    @property
    def embedding_size(self) -> int:
        """The columns of the word embeddings' table.

        A configuration that has this name, as ALBERT's and ELECTRA's do, is not asked by
        transformers' BERT for a hidden size that is a multiple of the number of heads.
        """
        return self.embedding_rank or self.hidden_size


class Factorised(nn.Module):
    """A linear layer as two: x (…, in) -> (…, rank) without a bias -> (…, out).

    It has rank · (in + out) weights instead of in · out.
    """

    def __init__(self, in_features: int, out_features: int, rank: int, *, bias: bool = True):
        super().__init__()
        self.in_features, self.out_features, self.rank = in_features, out_features, rank
        self.down = nn.Linear(in_features, rank, bias=False)
        self.up = nn.Linear(rank, out_features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x))


class FactorisedEmbedding(nn.Module):
    """An embedding as two matrices: ids (B, S) -> a row of the table (B, S, rank) -> (B, S, H)."""

    def __init__(self, vocab_size: int, hidden_size: int, rank: int, *, padding_idx: int | None):
        super().__init__()
        self.table = nn.Embedding(vocab_size, rank, padding_idx=padding_idx)
        self.up = nn.Linear(rank, hidden_size, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.up(self.table(input_ids))


class _Compact:
    """What the three classes share: built as their parents are, then each layer gets its sizes."""

    config_class = CompactBertConfig

    def __init__(self, config: CompactBertConfig, **kwargs):
        _check(config)
        super().__init__(config, **kwargs)
        _resize_layers(self.base_model, config)
        _factorise(self, config)
        if config.embedding_rank and self._tied_weights_keys:  # no table that a decoder could share
            own = "cls.predictions.decoder.weight"
            self._tied_weights_keys = {k: v for k, v in self._tied_weights_keys.items() if k != own}
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The table with a row per token, of `embedding_size` columns."""
        words = self.base_model.embeddings.word_embeddings
        return words.table if isinstance(words, FactorisedEmbedding) else words

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        embeddings = self.base_model.embeddings
        if isinstance(embeddings.word_embeddings, FactorisedEmbedding):
            embeddings.word_embeddings.table = value
        else:
            embeddings.word_embeddings = value


class CompactBertModel(_Compact, BertModel):
    """`BertModel` with the sizes of a `CompactBertConfig`."""


class CompactBertForSequenceClassification(_Compact, BertForSequenceClassification):
    """`BertForSequenceClassification` with the sizes of a `CompactBertConfig`."""


class CompactBertForMaskedLM(_Compact, BertForMaskedLM):
    """`BertForMaskedLM` with the sizes of a `CompactBertConfig`.

    The decoder shares the table of the word embeddings, unless that is factorised: it is V x H.
    """


_COMPACT = {
    BertModel: CompactBertModel,
    BertForSequenceClassification: CompactBertForSequenceClassification,
    BertForMaskedLM: CompactBertForMaskedLM,
}

# The one thing that happens at import, as it does for each of transformers' own architectures.
AutoConfig.register("compact_bert", CompactBertConfig, exist_ok=True)
AutoModel.register(CompactBertConfig, CompactBertModel, exist_ok=True)
AutoModelForMaskedLM.register(CompactBertConfig, CompactBertForMaskedLM, exist_ok=True)
AutoModelForSequenceClassification.register(
    CompactBertConfig, CompactBertForSequenceClassification, exist_ok=True
)


def compact(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a BERT as its compact class, which computes what the model does, to the last bit.

    It is where every structural compression begins. A compact model is copied as it is. Raises
    `ModelError` for another family, for a decoder, and for weights that do not fit the
    configuration, as those of a model that was quantized or pruned in another way.
    """
    kind = type(model) if type(model) in _COMPACT.values() else _COMPACT.get(type(model))
    if kind is None or model.config.is_decoder:
        what = "A BERT that is a decoder" if kind else f"A {type(model).__name__}"
        raise ModelError(
            f"{what} cannot be made compact.",
            do=f"Take one of {', '.join(k.__name__ for k in _COMPACT)}, from "
            "student_from_teacher(…, keep_token_types=True) or from_pretrained.",
        )
    need_fit(model)
    if kind is type(model):
        config = copy.deepcopy(model.config)
    else:
        old = {k: v for k, v in model.config.to_dict().items() if k != "model_type"}
        config = CompactBertConfig(**old)
        config._attn_implementation = model.config._attn_implementation
    return with_weights(kind, config, model.state_dict(), like=model)


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The layers of a BERT's encoder, compact or not.

    Raises `ModelError` for another family, and for layers without weights, which were quantized.
    """
    bert = getattr(model, "base_model", None)
    if not isinstance(bert, BertModel):
        raise ModelError(
            f"A {type(model).__name__} has no layers as BERT's are.",
            do=f"Take one of {', '.join(kind.__name__ for kind in _COMPACT)}.",
        )
    for layer in bert.encoder.layer:
        dense = layer.intermediate.dense
        if not isinstance(dense, nn.Linear | Factorised):
            raise ModelError(
                f"The layers of this BERT are not linear any more, but {type(dense).__name__}.",
                do="Prune or factorise first, then quantize.",
            )
    return bert.encoder.layer


def _check(config: CompactBertConfig) -> None:
    """Nothing; raises `ModelError` unless there is a size, at least 1, for every layer."""
    n_layers = config.num_hidden_layers
    for name in ("heads_per_layer", "neurons_per_layer"):
        sizes = getattr(config, name)
        if len(sizes) != n_layers or not all(_is_size(n) for n in sizes):
            raise ModelError(
                f"{name} is {sizes} in a model of {n_layers} layers.",
                do="Give a whole number for every layer, and at least 1: an attention without a "
                "head, or a feed-forward without a neuron, is no layer.",
            )
    sizes = {"head_size": config.head_size, "embedding_rank": config.embedding_rank}
    for name, n in sizes.items():
        if not _is_size(n) and not (name == "embedding_rank" and n is None):
            raise ModelError(f"{name} is {n!r}.", do="Give a whole number, at least 1.")


def _resize_layers(bert: BertModel, config: CompactBertConfig) -> None:
    """Nothing; every layer has its own numbers of heads and neurons, with new weights."""
    hidden_size = config.hidden_size
    sizes = zip(bert.encoder.layer, config.heads_per_layer, config.neurons_per_layer, strict=True)
    for layer, n_heads, n_neurons in sizes:
        attention, width = layer.attention.self, n_heads * config.head_size
        attention.num_attention_heads = n_heads
        attention.attention_head_size = config.head_size
        attention.all_head_size = width
        attention.scaling = config.head_size**-0.5
        for name in ("query", "key", "value"):
            setattr(attention, name, nn.Linear(hidden_size, width))
        layer.attention.output.dense = nn.Linear(width, hidden_size)
        layer.intermediate.dense = nn.Linear(hidden_size, n_neurons)
        layer.output.dense = nn.Linear(n_neurons, hidden_size)


def _factorise(model: PreTrainedModel, config: CompactBertConfig) -> None:
    """Nothing; what has a rank is factorised, with new weights."""
    for name, rank in config.ranks.items():
        if model is model.base_model:
            if not name.startswith("bert."):  # of a head, which the encoder alone has not
                continue
            name = name.removeprefix("bert.")
        modules = dict(model.named_modules())
        linear, tied = modules.get(name), name.endswith("predictions.decoder")
        if not isinstance(linear, nn.Linear) or tied:
            raise ModelError(
                f"{name!r} cannot be factorised: it is "
                f"{'tied to the word embeddings' if tied else 'no linear layer of this model'}.",
                do="Name a layer such as bert.encoder.layer.0.output.dense.",
            )
        sizes, bias = (linear.in_features, linear.out_features), linear.bias is not None
        if not _is_size(rank) or rank > min(sizes):
            raise ModelError(
                f"{name!r} cannot have rank {rank!r}.", do=f"Take a rank of 1 to {min(sizes)}."
            )
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, Factorised(*sizes, rank, bias=bias))
    if config.embedding_rank:
        model.base_model.embeddings.word_embeddings = FactorisedEmbedding(
            config.vocab_size,
            config.hidden_size,
            config.embedding_rank,
            padding_idx=config.pad_token_id,
        )


def _is_size(n: object) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and n >= 1
