"""Texts as token ids, ready for a model: encoded once, padded batch by batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from course_utils.data.padding import pad as pad_arrays
from course_utils.errors import DataError

MAX_LENGTH = 128


class EncodedTexts(Dataset):
    """Token ids of N texts with tensors that go with them, row by row.

    `columns` maps a name to a tensor whose first dimension is N: `labels` (N,), and later the
    teacher's signals. An item is a dict of its ids and its row of every column.
    """

    def __init__(self, input_ids: list[list[int]], **columns: Tensor):
        wrong = {name: len(rows) for name, rows in columns.items() if len(rows) != len(input_ids)}
        if wrong:
            raise DataError(
                f"There are {len(input_ids)} texts, but rows in these columns: {wrong}."
            )
        self.input_ids = input_ids
        self.columns = columns

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any id of any text, or with their order."""
        return hashlib.sha256(json.dumps(self.input_ids).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, i: int) -> dict:
        return {"input_ids": self.input_ids[i]} | {k: v[i] for k, v in self.columns.items()}

    def with_columns(self, **columns: Tensor) -> EncodedTexts:
        """The same texts with more or other columns; nothing is copied."""
        return EncodedTexts(self.input_ids, **self.columns | columns)

    def need_room(self, positions: int) -> None:
        """Nothing; raises `DataError` unless there is a text and none has more tokens than that."""
        longest = max(map(len, self.input_ids), default=0)
        if not 1 <= longest <= positions:
            raise DataError(
                f"The longest text has {longest} tokens; the model reads 1 to {positions}.",
                do=f"Give at least one text and cut them: encode(…, max_length={positions}).",
            )


def encode(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    labels: Sequence[int] | None = None,
    *,
    max_length: int = MAX_LENGTH,
) -> EncodedTexts:
    """The texts as ids, cut to `max_length` tokens; `labels` are -100 (not counted) if left out."""
    ids = []
    if texts := list(texts):  # a tokenizer fails on none
        options = {"truncation": True, "max_length": max_length, "return_attention_mask": False}
        ids = tokenizer(texts, **options)["input_ids"]
    labels = torch.full((len(ids),), -100) if labels is None else torch.tensor(labels)
    return EncodedTexts(ids, labels=labels)


def label_tensor(
    labels: Sequence[int | None] | Sequence[Sequence[int] | None],
    n_classes: int,
    multi_label: bool = False,
) -> Tensor:
    """The labels as the losses take them: (N,) int64, or (N, C) float32 of zeros and ones.

    `labels` are the classes' numbers; in a multi-label task each is a list of them, and an empty
    one says that no class is right. None, a text whose label nobody knows, becomes -100 (not
    counted), in a multi-label task a row of them; -100 itself stays. Raises `DataError` for a
    number without a class.
    """
    rows = [[] if row in (None, -100) else row if multi_label else [row] for row in labels]
    wrong = next((k for row in rows for k in row if not 0 <= k < n_classes), None)
    if wrong is not None:
        raise DataError(
            f"There is no class number {wrong}: there are {n_classes}, counted from 0.",
            do="Take the labels and the number of classes from the same task.",
        )
    if not multi_label:
        return torch.tensor([row[0] if row else -100 for row in rows], dtype=torch.int64)  # (N,)
    tensor = torch.zeros(len(rows), n_classes)  # (N, C)
    for i, (label, row) in enumerate(zip(labels, rows, strict=True)):
        tensor[i, row] = 1.0
        if label is None:
            tensor[i] = -100.0
    return tensor


def pad(rows: list[list[int]], pad_token_id: int, *, multiple_of: int = 1) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask`, (B, S) int64, as `padding.pad` makes them."""
    arrays = pad_arrays(rows, pad_token_id, multiple_of=multiple_of)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


class PadBatch:
    """A collator: items of `EncodedTexts` become one batch of tensors.

    Texts are padded to a multiple of 8 tokens. So few different shapes let the kernels and the
    memory made for one batch serve many: on a CPU, three quarters of the memory and of the time.
    """

    def __init__(self, pad_token_id: int):
        self.pad_token_id = pad_token_id

    def __call__(self, items: list[dict]) -> dict[str, Tensor]:
        rows = [item["input_ids"] for item in items]
        batch = pad(rows, self.pad_token_id, multiple_of=8)
        for name in items[0]:
            if name != "input_ids":
                batch[name] = torch.stack([item[name] for item in items])
        return batch
