"""A smaller vocabulary: the rows of the embedding table that a task's texts never use are left out.

BERT's table has a row for each of 30 522 tokens: half of MiniLM's parameters. What is left computes
what it did before, since no other number changes. After Abdaoui et al. 2020, "Load what you need:
smaller versions of multilingual BERT".
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from numbers import Integral
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from course_utils.compress.amounts import number
from course_utils.errors import DataError, ModelError
from course_utils.models.rebuild import need_fit, weight_shapes, with_weights

AT_LEAST = 8192
MOST_CUT = 0.025  # of the tokens of new texts

# What a tokenizer remembers of where it was read from, or holds itself: not a setting of a new one.
_NOT_SETTINGS = {"added_tokens_decoder", "vocab", "vocab_file", "tokenizer_file", "name_or_path"}


class Trimmed(NamedTuple):
    """A model and a tokenizer with fewer tokens, and where the old ones went.

    `new_ids` is (V,) int64 for the V rows of the old table: the new id of every old token, and that
    of [UNK] for a token that was left out.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    new_ids: Tensor


def tokens_to_keep(
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[Sequence[int]],
    *,
    at_least: int = AT_LEAST,
    at_most: int | None = None,
) -> list[int]:
    """The ids, sorted, of the tokens that these texts, as token ids, need and new ones may need.

    Those are all special and added tokens; every character, at the start of a word and within, so
    that a word whose token is left out falls into smaller pieces and not into [UNK]; and all that
    occur in the texts. If these are fewer than `at_least`, the first of the others join them, for a
    WordPiece vocabulary begins with its most frequent tokens; BERT's placeholders, [unused0] and so
    on, stay out. If they are more than `at_most`, the rarest are left out, but never a special
    token or a character, even if those alone are more. Raises `ModelError` for a tokenizer that is
    not WordPiece, and `DataError` for an id that it has not and a number of tokens that is none.
    """
    _need_wordpiece(tokenizer)
    vocabulary = tokenizer.get_vocab()
    at_most = len(vocabulary) if at_most is None else at_most
    if not (number(at_least, Integral) >= 0 and number(at_most, Integral) >= 0):
        raise DataError(
            f"At least {at_least!r} and at most {at_most!r} tokens cannot be kept.",
            do="Give whole numbers from 0.",
        )
    counts = Counter(chain.from_iterable(texts))
    if strangers := counts.keys() - set(vocabulary.values()):
        raise DataError(
            f"The tokenizer has no token with the id {min(strangers)}.",
            do="Give texts that this tokenizer made ids of, without -100.",
        )
    always = _special(tokenizer)
    always |= {i for token, i in vocabulary.items() if len(token.removeprefix("##")) == 1}
    others = [
        i
        for token, i in vocabulary.items()
        if i not in always and (i in counts or not token.startswith("[unused"))
    ]
    others.sort(key=lambda i: (-counts[i], i))
    n = min(max(at_least, len(always) + sum(i in counts for i in others)), at_most) - len(always)
    return sorted([*always, *others[: max(n, 0)]])


def tokens_to_keep_for_new_texts(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Sequence[int]],
    new: Sequence[Sequence[int]],
) -> list[int]:
    """As `tokens_to_keep`, and so many more that at most 2.5 % of the tokens of `new` are cut.

    A student does not know a word by its pieces as well as by its own token. Where `texts` are few,
    many a word of the next one is not among them: these are what the frequent ones are kept for.
    """
    special = set(tokenizer.all_special_ids)
    words = [i for ids in new for i in ids if i not in special]
    for at_least in range(AT_LEAST, len(tokenizer), 2048):
        keep = tokens_to_keep(tokenizer, texts, at_least=at_least)
        known = set(keep)
        if sum(i not in known for i in words) <= MOST_CUT * len(words):
            return keep
    return list(range(len(tokenizer)))


def trim_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, keep: Iterable[int]
) -> Trimmed:
    """A new model and a new tokenizer that know the tokens `keep` only, in their old order.

    For a text whose tokens are all kept, the new ids are `new_ids[old ids]`, and the new model
    computes from them what a copy of the old one does, to the last bit; a masked-language head has
    a logit per kept token. Any other word is split into the longest tokens that are left. The given
    model and tokenizer stay as they were. Raises `ModelError` for a tokenizer that is not WordPiece
    or not the model's, and when `keep` names a token twice, one that does not exist, or not all
    special ones; and for a model whose weights do not fit its configuration, as those of one that
    was pruned by hand or quantized.
    """
    _need_wordpiece(tokenizer)
    n_rows = model.config.vocab_size
    if len(tokenizer) > n_rows:
        raise ModelError(
            f"The tokenizer has {len(tokenizer)} tokens, the model rows for {n_rows}.",
            do="Take the tokenizer from the folder of the model.",
        )
    rows = torch.tensor(_checked(tokenizer, list(keep)))  # (K,) old ids
    new_ids = torch.full((n_rows,), -1)
    new_ids[rows] = torch.arange(len(rows))
    new_ids[new_ids < 0] = new_ids[tokenizer.unk_token_id].item()

    config = copy.deepcopy(model.config)
    config.vocab_size = len(rows)
    for name, value in config.to_dict().items():
        if name.endswith("_token_id") and isinstance(value, int) and 0 <= value < n_rows:
            setattr(config, name, int(new_ids[value]))
    return Trimmed(_with_rows(model, config, rows), _with_tokens(tokenizer, rows), new_ids)


def cut_positions(model: PreTrainedModel, positions: int) -> PreTrainedModel:
    """A new model that reads at most `positions` tokens, with the first position embeddings.

    On texts that short it computes what a copy of the old one does. Set the tokenizer's
    `model_max_length`, too. Raises `ModelError` for less than 1 and for more than the model has,
    and for weights that do not fit its configuration.
    """
    was = getattr(model.config, "max_position_embeddings", 0)
    if not 1 <= number(positions, Integral) <= was:
        raise ModelError(
            f"A model with {was} positions cannot be cut to {positions}.", do=f"Take 1 to {was}."
        )
    config = copy.deepcopy(model.config)
    config.max_position_embeddings = positions
    return _with_rows(model, config, torch.arange(positions))


def _with_rows(model: PreTrainedModel, config: PreTrainedConfig, rows: Tensor) -> PreTrainedModel:
    """A new model: these rows of what is smaller under `config`, and copies of all else."""
    need_fit(model)
    shapes = weight_shapes(type(model), config)
    weights = {
        name: tensor[rows.to(tensor.device)] if tensor.shape != shapes[name] else tensor
        for name, tensor in model.state_dict().items()
    }
    return with_weights(type(model), config, weights, like=model)


def _with_tokens(old: PreTrainedTokenizerBase, rows: Tensor) -> PreTrainedTokenizerBase:
    """A new tokenizer of the same class and settings with the tokens of these old ids."""
    new_id = {i: k for k, i in enumerate(rows.tolist())}
    parts = json.loads(old.backend_tokenizer.to_str())
    vocabulary = parts["model"]["vocab"]
    parts["model"]["vocab"] = {t: new_id[i] for t, i in vocabulary.items() if i in new_id}
    for token in parts["added_tokens"]:
        token["id"] = new_id[token["id"]]
    if parts["padding"]:
        parts["padding"]["pad_id"] = new_id[parts["padding"]["pad_id"]]
    _renumber(parts["post_processor"] or {}, new_id)
    settings = {k: v for k, v in old.init_kwargs.items() if k not in _NOT_SETTINGS}
    settings |= old.special_tokens_map | {"extra_special_tokens": old.extra_special_tokens}
    settings["model_max_length"] = old.model_max_length
    return type(old)(tokenizer_object=Tokenizer.from_str(json.dumps(parts)), **settings)


def _renumber(processor: dict, new_id: dict[int, int]) -> None:
    """Nothing; the ids of the special tokens that a post-processor adds are the new ones."""
    for token in processor.get("special_tokens", {}).values():  # a template
        token["ids"] = [new_id[i] for i in token["ids"]]
    for name in processor.keys() & {"cls", "sep"}:  # BERT's own: a token and its id
        processor[name][1] = new_id[processor[name][1]]
    for part in processor.get("processors", ()):  # one after the other
        _renumber(part, new_id)


def _need_wordpiece(tokenizer: PreTrainedTokenizerBase) -> None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not isinstance(backend.model, WordPiece):
        kind = type(tokenizer if backend is None else backend.model).__name__
        raise ModelError(
            f"The vocabulary of a {kind} cannot be trimmed: its tokens may be made of one another.",
            do="Take a BERT with a WordPiece vocabulary, or keep the whole vocabulary.",
        )


def _special(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The ids of special and added tokens, which are found in a text before it is split."""
    return {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}


def _checked(tokenizer: PreTrainedTokenizerBase, keep: list[int]) -> list[int]:
    """The ids, sorted; raises `ModelError` unless each is a token, once, with all special ones."""
    tokens = {i: token for token, i in tokenizer.get_vocab().items()}
    if strangers := [i for i in keep if i not in tokens]:
        raise ModelError(f"There is no token with the id {strangers[0]!r}.", do="See get_vocab().")
    if len(set(keep)) < len(keep):
        twice = Counter(keep).most_common(1)[0][0]
        raise ModelError(f"The token {tokens[twice]!r} ({twice}) is to be kept twice.", do="Once.")
    if missing := sorted(_special(tokenizer) - set(keep)):
        raise ModelError(
            f"These special tokens would be lost: {', '.join(tokens[i] for i in missing)}.",
            do="Keep them: tokens_to_keep(tokenizer, texts) does.",
        )
    return sorted(keep)
