"""A puzzle for attention: some facts, each a key with its value, then the keys again as questions.

    a 3 f 1 c 8 b 5 | c b a f      the answers are 8 5 3 1

(The stroke is for the eye.) No single token holds an answer: it is found by looking at others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from course_utils.errors import DataError

KEYS, VALUES = "abcdefgh", "12345678"
TOKENS = (*KEYS, *VALUES)  # a token's id is its place in here


def recall_puzzles(
    count: int, *, facts: int = 4, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`input_ids` (B, S) and `labels` (B, S) of new puzzles, S = 3 * `facts`.

    In a puzzle all keys differ, and so do all values. The labels are the ids of the values asked
    for, and -100 where nothing is asked. Raises `DataError` for a number of facts below 1, or
    above the number of keys.
    """
    if not 1 <= facts <= len(KEYS):
        raise DataError(f"A puzzle of {facts} facts.", do=f"Choose from 1 to {len(KEYS)} facts.")

    def draw(most: int) -> Tensor:
        return torch.rand(count, most, generator=generator).argsort(dim=1)[:, :facts]

    keys, values, order = draw(len(KEYS)), len(KEYS) + draw(len(VALUES)), draw(facts)
    stored = torch.stack([keys, values], dim=2).flatten(1)  # (B, 2 * facts): a 3 f 1 ...
    input_ids = torch.cat([stored, keys.gather(1, order)], dim=1)  # (B, S)
    labels = torch.full_like(input_ids, -100)
    labels[:, 2 * facts :] = values.gather(1, order)
    return input_ids, labels


def where_stored(input_ids: Tensor) -> Tensor:
    """The position of the key that each question repeats, (B, facts); its value is one further."""
    facts = input_ids.shape[1] // 3
    asked, stored = input_ids[:, 2 * facts :], input_ids[:, : 2 * facts]
    return (asked[:, :, None] == stored[:, None, :]).int().argmax(dim=2)


def spelled(ids: Tensor) -> list[str]:
    """The tokens of a row of ids, to read and to label figures."""
    return [TOKENS[k] for k in ids.tolist()]
