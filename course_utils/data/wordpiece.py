"""WordPiece written out: how BERT turns a text into the numbers of its word pieces.

Two steps. `basic_split` cleans the text and cuts it at spaces and punctuation; `wordpiece` cuts
each word into the longest pieces that the vocabulary has. A piece that does not begin its word is
written with two hashes in front. Devlin et al. 2019, section 3; Wu et al. 2016, section 4.1. In
every detail it does what the Rust library `tokenizers` does for bert-base-uncased.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Mapping

from course_utils.errors import DataError, ModelError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
MAX_CHARS = 100
# Blocks of Chinese characters, which are written without spaces. 0x2B920 and not 0x2B820, where
# the block begins, is a slip in the library; we keep to it, for equal ids.
_CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
_SPECIAL = re.compile(f"({'|'.join(map(re.escape, SPECIAL))})")


def wordpiece(
    word: str, vocabulary: Mapping[str, int], *, unknown: str = "[UNK]", max_chars: int = MAX_CHARS
) -> list[str]:
    """The pieces of one word, each the longest in the vocabulary; `[unknown]` if none fits.

    Greedy: from the left, never going back. A word of more than `max_chars` characters is unknown
    as a whole, and so is a word whose rest cannot be cut.
    """
    if len(word) > max_chars:
        return [unknown]
    pieces, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        for end in range(len(word), start, -1):
            if (piece := prefix + word[start:end]) in vocabulary:
                break
        else:
            return [unknown]
        pieces.append(piece)
        start = end
    return pieces


def basic_split(text: str) -> list[str]:
    """The words of a text in lower case without accents; each punctuation mark is a word.

    Raises `DataError` when the text is no string.
    """
    _check(text)
    text = _strip_accents("".join(map(_clean, text)))
    text = "".join(map(str.lower, text))  # one by one: in a whole word, a final Σ becomes ς
    return "".join(f" {c} " if _is_punctuation(c) else c for c in text).split()


def tokenize(text: str, vocabulary: Mapping[str, int]) -> list[str]:
    """The pieces of a text. [MASK] and the other special tokens may stand in it, in capitals.

    Raises `DataError` when the text is no string, `ModelError` when the vocabulary is no dict.
    """
    _check(text)
    if not isinstance(vocabulary, Mapping):
        raise ModelError(
            f"A {type(vocabulary).__name__} where a vocabulary is needed, token -> id.",
            do="Give a tokenizer's vocabulary: tokenizer.get_vocab().",
        )
    pieces = []
    for k, part in enumerate(_SPECIAL.split(text)):  # plain, special, plain, special, …, plain
        if k % 2:
            pieces.append(part)
        else:
            pieces += [piece for word in basic_split(part) for piece in wordpiece(word, vocabulary)]
    return pieces


def encode(
    text: str,
    vocabulary: Mapping[str, int],
    *,
    pair: str | None = None,
    max_length: int | None = None,
) -> dict[str, list[int]]:
    """`input_ids` and `token_type_ids` of [CLS] text [SEP], or of [CLS] text [SEP] pair [SEP].

    The types, also called segment ids, are 0 up to the first [SEP] and 1 after it. With
    `max_length` the end of the text is cut off, of two texts that of the longer one first. Raises
    `DataError` when there is no room for the special tokens, `ModelError` when the vocabulary
    is none or lacks one of them.
    """
    texts = [tokenize(part, vocabulary) for part in (text, pair) if part is not None]
    if missing := [token for token in SPECIAL if token not in vocabulary]:
        raise ModelError(
            f"The vocabulary lacks {', '.join(missing)}.",
            do="Give that of a BERT: tokenizer.get_vocab().",
        )
    if max_length is not None:
        texts = _cut(texts, max_length)
    tokens, types = ["[CLS]"], [0]
    for segment, pieces in enumerate(texts):
        tokens += [*pieces, "[SEP]"]
        types += [segment] * (len(pieces) + 1)
    return {"input_ids": [vocabulary[token] for token in tokens], "token_type_ids": types}


def _cut(texts: list[list[str]], max_length: int) -> list[list[str]]:
    room = max_length - 1 - len(texts)  # for [CLS], and a [SEP] after each text
    if room < 0:
        raise DataError(
            f"{max_length} tokens have no room for [CLS] and {len(texts)} [SEP].",
            do=f"Take a max_length of at least {1 + len(texts)}.",
        )
    if len(texts) == 1:
        return [texts[0][:room]]
    first, second = map(len, texts)
    short = min(first, second, room // 2)
    ends = (short, room - short) if first <= second else (room - short, short)
    return [pieces[:end] for pieces, end in zip(texts, ends, strict=True)]


def _check(text: str) -> None:
    if not isinstance(text, str):
        raise DataError(
            f"A {type(text).__name__} where a text is needed.", do="Give one text, a string."
        )


def _clean(character: str) -> str:
    """The character; a space for any white one, nothing for a control character."""
    if character in "\t\n\r":
        return " "
    if character == "\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Co"):
        return ""
    if character.isspace():
        return " "
    if any(first <= ord(character) <= last for first, last in _CHINESE):
        return f" {character} "
    return character


def _strip_accents(text: str) -> str:
    """The text with é taken apart into e and ´ (NFD), and all such marks left out."""
    return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")


def _is_punctuation(character: str) -> bool:
    """Also $, +, <, ^ and the like, which Unicode calls symbols."""
    return character in string.punctuation or unicodedata.category(character).startswith("P")
