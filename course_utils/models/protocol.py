"""What every classifier of the course can do, whatever runs it. Needs numpy, nothing heavier."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from course_utils.data.padding import pad
from course_utils.errors import DataError, ModelError


class Classifier(ABC):
    """Texts in, logits out. PyTorch and ONNX Runtime differ in `token_ids` and `logits` only."""

    name: str
    labels: tuple[str, ...]  # in the order of the logits
    max_length: int  # tokens; longer texts are cut
    pad_token_id: int

    @property
    @abstractmethod
    def threads(self) -> int:
        """Threads that one call of `logits` uses."""

    @abstractmethod
    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of every text with its special tokens, cut to `max_length`, not padded."""

    @abstractmethod
    def logits(self, encoded: Mapping[str, np.ndarray]) -> np.ndarray:
        """Logits (B, C), float32, of one encoded batch; the model is in eval mode."""

    def encode(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """`input_ids` and `attention_mask`, (B, S) int64, padded to the longest text.

        Raises `DataError` for no text at all, for a single string instead of a list, and for what
        is no text that UTF-8 can hold.
        """
        return pad(self.token_ids(_checked(texts)), self.pad_token_id)

    def predict(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        """Logits (N, C), float32, in the order of the texts; like lengths share a batch."""
        rows = self.token_ids(_checked(texts))
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        logits = np.empty((len(rows), len(self.labels)), np.float32)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            logits[batch] = self.logits(pad([rows[i] for i in batch], self.pad_token_id))
        return logits


def labels_of(
    id2label: Mapping[int | str, str], *, where: str | Path | None = None
) -> tuple[str, ...]:
    """The names of the classes in the order of the logits, from a configuration's `id2label`.

    Raises `ModelError` unless each of the numbers 0, 1, 2 ... has its name.
    """
    try:
        named = sorted((int(i), name) for i, name in id2label.items())
        if all(i == k and isinstance(name, str) for k, (i, name) in enumerate(named)):
            return tuple(name for _, name in named)
    except (AttributeError, TypeError, ValueError):
        pass
    raise ModelError(
        "The id2label of this configuration is no list of classes.",
        where=where,
        do='It is to name each, from 0 on, as in {"0": "numpy", "1": "torch"}.',
    )


def need_files(folder: str | Path, names: Sequence[str]) -> Path:
    """The folder, if it holds all these files; else a `ModelError` that names what is missing."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError("There is no such folder.", where=folder, do="Check the path.")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ModelError(
            f"This folder holds no classifier: it lacks {', '.join(missing)}.",
            where=folder,
            do=f"Give a folder with {', '.join(names)} (only safetensors are loaded, no pickles).",
        )
    return folder


def _checked(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise DataError("One text where a list of texts is needed.", do="Write [text].")
    if not len(texts):
        raise DataError("There is no text to classify.", do="Give a list with at least one text.")
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise DataError(
                f"This is no text but {type(text).__name__}.",
                where=f"text {number} of {len(texts)}",
                do="Give strings; leave out what is missing.",
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"The character {text[error.start]!a} stands for a byte that is no UTF-8 text.",
                where=f"text {number} of {len(texts)}, after {error.start} characters",
                do="Convert the text to UTF-8 first.",
            ) from None
    return list(texts)
