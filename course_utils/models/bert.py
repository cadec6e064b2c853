"""BERT, assembled from the parts in encoder.py; it reads the files that transformers writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BertConfig

from course_utils.errors import ModelError
from course_utils.models.attention import padding_mask
from course_utils.models.encoder import Embeddings, Encoder
from course_utils.models.shapes import need_shape

BERT = {"model_type": "bert", "hidden_act": "gelu", "is_decoder": False}
UNREADABLE = (OSError, ValueError, TypeError, AttributeError, SafetensorError, StrictDataclassError)
NAMES = {  # what transformers calls a part: what we call it; replaced in this order
    "LayerNorm.gamma": "LayerNorm.weight",  # in files from TensorFlow
    "LayerNorm.beta": "LayerNorm.bias",
    "embeddings.word_embeddings": "embeddings.words",
    "embeddings.position_embeddings": "embeddings.positions",
    "embeddings.token_type_embeddings": "embeddings.types",
    "embeddings.LayerNorm": "embeddings.norm",
    "encoder.layer.": "encoder.blocks.",
    "attention.self.": "attention.",
    "attention.output.LayerNorm": "attention_norm",
    "attention.output.dense": "attention.output",
    "intermediate.dense": "feed_forward.expand",
    "output.dense": "feed_forward.contract",
    "output.LayerNorm": "feed_forward_norm",
    "pooler.dense": "pooler",
}


class MiniBertOutput(NamedTuple):
    hidden_states: tuple[Tensor, ...]  # n_layers + 1 of (B, S, H), the embeddings first
    pooled: Tensor | None  # (B, H); None when the model has no pooler
    attentions: tuple[Tensor, ...]  # n_layers of (B, A, S, S)


class MiniBert(nn.Module):
    """BERT without a head (Devlin et al. 2019, section 3): ids (B, S) to a `MiniBertOutput`.

    `ignored` names weights of a file that belong to a head and were left out. Raises `ModelError`
    for a configuration that is not BERT's, `DataError` for ids or shapes it has no place for.
    """

    def __init__(self, config: BertConfig, *, pooler: bool = True):
        super().__init__()
        _need_bert(config)
        self.config, self.ignored = config, ()
        size, n_heads = config.hidden_size, config.num_attention_heads
        options = {"dropout": config.hidden_dropout_prob, "norm_eps": config.layer_norm_eps}
        self.embeddings = Embeddings(
            config.vocab_size,
            config.max_position_embeddings,
            config.type_vocab_size,
            size,
            padding_id=config.pad_token_id,
            **options,
        )
        self.encoder = Encoder(
            config.num_hidden_layers, size, n_heads, config.intermediate_size, **options
        )
        for block in self.encoder.blocks:
            block.attention.dropout = config.attention_probs_dropout_prob
        self.pooler = nn.Linear(size, size) if pooler else None

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> MiniBertOutput:
        hidden = self.embeddings(input_ids, token_type_ids)  # (B, S, H)
        mask = None
        if attention_mask is not None:
            need_shape("attention_mask", attention_mask, input_ids.shape, axes="(B, S)")
            mask = padding_mask(attention_mask)  # (B, 1, 1, S)
        hidden_states, attentions = self.encoder(hidden, mask=mask)
        first = hidden_states[-1][:, 0]  # (B, H), at [CLS]
        pooled = None if self.pooler is None else torch.tanh(self.pooler(first))
        return MiniBertOutput(tuple(hidden_states), pooled, tuple(attentions))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> MiniBert:
        """The model in a folder's config.json and model.safetensors; see `from_weights`."""
        try:
            text = Path(folder, "config.json").read_text(encoding="utf-8")
            config = BertConfig.from_dict(json.loads(text))
            _need_bert(config, folder)
            weights = load_file(Path(folder, "model.safetensors"))
        except UNREADABLE as error:
            raise ModelError(
                f"This model cannot be read: {' '.join(str(error).split())}",
                where=folder,
                do="Give a folder that has the config.json and model.safetensors of a BERT.",
            ) from error
        return cls.from_weights(config, weights, where=folder)

    @classmethod
    def from_weights(
        cls, config: BertConfig, weights: Mapping[str, Tensor], *, where: str | Path | None = None
    ) -> MiniBert:
        """A model with copies of `weights`, named as in transformers, in float32 and eval mode.

        They are those of a `BertModel`, or of a BERT with a head, whose encoder is below `bert.`
        and may lack the pooler. Raises `ModelError` that lists what is missing or unexpected.
        """
        prefix = "bert." if any(name.startswith("bert.") for name in weights) else ""
        body = {our_name(n[len(prefix) :]): w for n, w in weights.items() if n.startswith(prefix)}
        body.pop("embeddings.position_ids", None)  # the numbers 0, 1, 2 ... of older files
        with torch.device("meta"):  # shapes without values
            model = cls(config, pooler="pooler.weight" in body)
        _need_same(model.state_dict(), body, where)
        copies = {name: weight.to(torch.float32, copy=True) for name, weight in body.items()}
        model.load_state_dict(copies, assign=True)
        model.ignored = tuple(name for name in weights if not name.startswith(prefix))
        return model.eval()


def our_name(name: str) -> str:
    """What MiniBert calls a weight that transformers calls `name`."""
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return name


def _need_bert(config: BertConfig, where: str | Path | None = None) -> None:
    for name, needed in BERT.items():
        if (found := getattr(config, name, needed)) != needed:
            what = f"MiniBert needs {name} {needed!r}; this model has {found!r}."
            raise ModelError(what, where=where, do="Load it with transformers' AutoModel.")


def _need_same(model: Mapping[str, Tensor], file: Mapping[str, Tensor], where: str | Path) -> None:
    need, have = ({name: tuple(w.shape) for name, w in side.items()} for side in (model, file))
    if wrong := [n for n in need | have if need.get(n) != have.get(n)]:
        some = [f"{n} is {have.get(n, 'missing')}, expected {need.get(n, 'none')}" for n in wrong]
        some[4:] = [f"and {len(some) - 4} more"] if len(some) > 4 else []
        what = f"These weights do not fit the configuration: {'; '.join(some)}."
        raise ModelError(what, where=where, do="Take config.json and weights of the same model.")
