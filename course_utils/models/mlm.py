"""A BERT that guesses hidden words: an encoder with a masked-language head, and its guesses."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    BertForMaskedLM,
    BertModel,
    DistilBertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from course_utils.errors import DataError, ModelError

MaskedLM = BertForMaskedLM | DistilBertForMaskedLM


def load_masked_lm(folder: str | Path) -> BertForMaskedLM:
    """The BERT in `folder` with its own head; with a new one, to be trained, where it has none.

    In float32 and eval mode. Raises `ModelError` for what is not BERT, and for weights that are
    missing, unreadable or of other shapes than the configuration says.
    """
    folder = Path(folder)
    options = {"local_files_only": True, "output_loading_info": True}
    options |= {"use_safetensors": True, "ignore_mismatched_sizes": True}  # reported below
    try:
        family = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        if family != "bert":
            raise ModelError(f"This model is a {family}, not a BERT.", where=folder)
        kind = BertForMaskedLM if has_mlm_head(folder) else BertModel
        model, loaded = kind.from_pretrained(folder, dtype=torch.float32, **options)
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        raise ModelError(
            f"This model cannot be read: {str(error).splitlines()[0]}",
            where=folder,
            do="Give a folder that has the config.json and model.safetensors of a BERT.",
        ) from error
    wrong = {*loaded["missing_keys"], *(name for name, *_ in loaded["mismatched_keys"])}
    if wrong := sorted(name for name in wrong if not name.startswith("pooler.")):  # it is not used
        raise ModelError(
            f"These weights do not fit the configuration: {', '.join(wrong[:4])}"
            f"{f' and {len(wrong) - 4} more' if len(wrong) > 4 else ''}.",
            where=folder,
            do="Take config.json and weights of the same model.",
        )
    return (model if kind is BertForMaskedLM else add_mlm_head(model)).eval()


def has_mlm_head(folder: str | Path) -> bool:
    """Whether the weights in `folder` have a trained masked-language head.

    Raises `ModelError` when there is no model.safetensors that can be read.
    """
    file = Path(folder, "model.safetensors")
    try:
        with safe_open(file, "pt") as weights:
            names = list(weights.keys())
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"These weights cannot be read: {error}", where=file, do="Copy the file anew."
        ) from error
    return any(name.startswith("cls.predictions.transform.") for name in names)


def add_mlm_head(encoder: PreTrainedModel) -> BertForMaskedLM:
    """A new model: copies of the encoder's weights, and a head to be trained.

    The head is Devlin et al.'s: a linear map, GELU and LayerNorm, then a product with the word
    embeddings themselves (the decoder is tied to them) and one bias per word. The linear map starts
    as the identity, so that at first a word is likely where the hidden state resembles its
    embedding; from random weights, training needs about twice as many texts to get as far. Raises
    `ModelError` when the encoder is no BERT.
    """
    encoder = getattr(encoder, "base_model", encoder)
    if not isinstance(encoder, BertModel):
        raise ModelError(
            f"A {type(encoder).__name__} where a BERT is needed.", do="Take a BertModel."
        )
    config = copy.deepcopy(encoder.config)
    config.tie_word_embeddings = True
    model = BertForMaskedLM(config).to(encoder.device, encoder.dtype).eval()
    weights = encoder.state_dict()
    model.bert.load_state_dict({name: weights[name] for name in model.bert.state_dict()})
    nn.init.eye_(model.cls.predictions.transform.dense.weight)
    return model


@contextmanager
def head_sees_only(model: MaskedLM, counted: Tensor) -> Iterator[list[Tensor]]:
    """A list that gets the last hidden states, (B·S, H); inside the block the head gets some only.

    Those are the N positions where `counted` (B, S) is true, or whose numbers in the flattened
    batch it holds, (N,). The model's logits are then (N, V) and not (B, S, V): with 15 % of the
    tokens masked, a seventh of the products with all word embeddings, the largest ones of the
    model. The forward pass still goes through whatever wraps the model.
    """
    rows = counted.flatten().nonzero()[:, 0] if counted.dtype == torch.bool else counted  # (N,)
    seen = []

    def select(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        seen.append(inputs[0].flatten(0, 1))  # (B·S, H)
        return (seen[0][rows],)  # (N, H)

    first = model.cls if isinstance(model, BertForMaskedLM) else model.vocab_transform
    hook = first.register_forward_pre_hook(select)
    try:
        yield seen
    finally:
        hook.remove()


def masked_lm_head(model: MaskedLM) -> nn.Module:
    """The model's own head: from hidden states (N, H) to logits (N, V)."""
    if isinstance(model, BertForMaskedLM):
        return model.cls
    return nn.Sequential(
        model.vocab_transform, model.activation, model.vocab_layer_norm, model.vocab_projector
    )


@torch.no_grad()
def top_guesses(
    model: BertForMaskedLM, tokenizer: PreTrainedTokenizerBase, text: str, k: int = 5
) -> list[list[tuple[str, float]]]:
    """For each [MASK] in `text`, the k likeliest words with their probabilities, likeliest first.

    The model computes in eval mode and is afterwards in the mode it was in. Raises `DataError` for
    a text without [MASK] or with more tokens than the model has positions, and for a k that is not
    1 to the size of the vocabulary; `ModelError` for a tokenizer that is not the model's.
    """
    input_ids = _ids_with_mask(model, tokenizer, text).to(model.device)  # (1, S)
    if not 1 <= k <= len(tokenizer):
        raise DataError(f"{k} guesses cannot be given.", do=f"Take 1 to {len(tokenizer)}.")
    training = model.training
    model.eval()
    with head_sees_only(model, input_ids == tokenizer.mask_token_id):
        logits = model(input_ids=input_ids).logits  # (N, V)
    model.train(training)
    probs = logits.float().softmax(-1)  # (N, V)
    best = probs[:, : len(tokenizer)].topk(k)  # some models have more rows than there are words
    return [
        list(zip(tokenizer.convert_ids_to_tokens(ids), probs, strict=True))
        for ids, probs in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def need_its_tokenizer(model: BertForMaskedLM, tokenizer: PreTrainedTokenizerBase) -> None:
    """Nothing; raises `ModelError` unless the tokenizer has a mask and no id beyond the model's."""
    if tokenizer.mask_token_id is None or len(tokenizer) > model.config.vocab_size:
        raise ModelError(
            f"This tokenizer has {len(tokenizer)} tokens with mask token {tokenizer.mask_token}; "
            f"the model knows {model.config.vocab_size}.",
            do="Take the tokenizer from the folder of the model.",
        )


def _ids_with_mask(model: BertForMaskedLM, tokenizer: PreTrainedTokenizerBase, text: str) -> Tensor:
    need_its_tokenizer(model, tokenizer)
    if not isinstance(text, str) or tokenizer.mask_token not in text:
        raise DataError(
            f"There is no {tokenizer.mask_token} in {text!r}.",
            do=f"Write {tokenizer.mask_token}, in capitals, where a word is to be guessed.",
        )
    ids = tokenizer(text)["input_ids"]
    if len(ids) > model.config.max_position_embeddings:
        raise DataError(
            f"The text has {len(ids)} tokens; the model reads "
            f"{model.config.max_position_embeddings}.",
            do="Give a shorter text.",
        )
    return torch.tensor([ids])
