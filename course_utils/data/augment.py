"""More text for a student to hear its teacher on, where a task brings none of its own."""

from __future__ import annotations

import random
from collections.abc import Sequence

HIDDEN_SHARE = 0.1
JOINED_SHARE = 0.5


def varied(
    input_ids: Sequence[list[int]], n: int, *, mask_id: int, max_length: int, seed: int = 0
) -> list[list[int]]:
    """`n` new texts as token ids: a given one, half of the time another behind it, tokens hidden.

    A given text begins and ends with a special token ([CLS], [SEP]); a new one has the first
    text's. Each token between them gives way to `mask_id` with a probability of 0.1, and of what
    is longer than `max_length` tokens the end is cut. Nobody knows the new texts' labels, but the
    teacher has an opinion of each, and a student that hears it learns how its teacher goes on
    beyond the texts of the task. The same seed gives the same texts.
    After Tang et al. 2019 (Distilling Task-Specific Knowledge from BERT), section 3.3, who mask
    words, too, but sample n-grams where this joins texts.
    """
    dice = random.Random(seed)
    made = []
    for _ in range(n):
        first, *tokens, last = dice.choice(input_ids)
        if dice.random() < JOINED_SHARE:
            tokens += dice.choice(input_ids)[1:-1]
        tokens = [mask_id if dice.random() < HIDDEN_SHARE else t for t in tokens]
        made.append([first, *tokens[: max_length - 2], last])
    return made
