"""Rows of unequal length as one array. Needs numpy only: what runs without torch pads, too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pad(
    rows: Sequence[Sequence[int]], pad_token_id: int, *, multiple_of: int = 1
) -> dict[str, np.ndarray]:
    """`input_ids` and `attention_mask`, (B, S) int64, padded to the longest row.

    S is rounded up to a multiple of `multiple_of`.
    """
    lengths = np.array([len(row) for row in rows])
    longest = -(-lengths.max() // multiple_of) * multiple_of
    real = np.arange(longest) < lengths[:, None]  # (B, S)
    input_ids = np.full(real.shape, pad_token_id, np.int64)
    input_ids[real] = np.concatenate(rows)
    return {"input_ids": input_ids, "attention_mask": real.astype(np.int64)}
