"""Texts that are token ids already, in the tokens of a smaller WordPiece vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from functools import cache

from transformers import PreTrainedTokenizerBase

from course_utils.data.encoding import EncodedTexts


def retokenised(
    texts: EncodedTexts,
    old: PreTrainedTokenizerBase,
    new: PreTrainedTokenizerBase,
    *,
    max_length: int,
) -> EncodedTexts:
    """The texts as `new` would encode them, given the ids that `old` made; columns stay.

    The vocabulary of `new` is a part of `old`'s, both are WordPiece (see
    `compress.vocabulary.trim_vocabulary`). A word with a token that is gone is split anew into the
    longest tokens that are left, as `new` splits it. What follows a hidden token inside a word has
    no beginning any more: there a token that is gone is [UNK]. Of what grows longer than
    `max_length` tokens the end is cut, but not the last token, which is special ([SEP]).
    """
    token_of = old.convert_ids_to_tokens(range(len(old)))
    split = new.backend_tokenizer.model.tokenize
    vocabulary, unknown = new.get_vocab(), new.unk_token_id
    special = set(old.all_special_tokens)

    @cache
    def spelled(word: tuple[str, ...]) -> tuple[int, ...]:
        """The new ids of the old tokens of one word."""
        if word[0].startswith("##") or all(token in vocabulary for token in word):
            return tuple(vocabulary.get(token, unknown) for token in word)
        return tuple(piece.id for piece in split("".join(t.removeprefix("##") for t in word)))

    def ids(old_ids: Sequence[int]) -> list[int]:
        tokens = [token_of[i] for i in old_ids]
        *body, last = (i for word in _words(tokens, special) for i in spelled(word))
        return [*body[: max_length - 1], last]

    return EncodedTexts([ids(each) for each in texts.input_ids], **texts.columns)


def _words(tokens: Sequence[str], special: Set[str]) -> Iterator[tuple[str, ...]]:
    """The tokens, those of one word together: a token and the ## tokens behind it.

    A special token, such as [MASK], stands alone, so ## tokens behind it are a group of their own.
    """
    word: list[str] = []
    for token in tokens:
        if word and not (token.startswith("##") and word[-1] not in special):
            yield tuple(word)
            word = []
        word.append(token)
    if word:
        yield tuple(word)
