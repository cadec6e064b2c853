"""Before a model reads texts to be measured: can it, and how many at a time."""

from __future__ import annotations

from itertools import chain
from numbers import Integral

from transformers import PreTrainedModel

from course_utils.compress.amounts import number
from course_utils.data.encoding import EncodedTexts
from course_utils.errors import DataError


def need_readable(model: PreTrainedModel, texts: EncodedTexts) -> None:
    """Nothing; raises `DataError` unless the model can read these texts."""
    texts.need_room(model.config.max_position_embeddings)
    if empty := [k for k, ids in enumerate(texts.input_ids) if not len(ids)]:
        raise DataError(
            f"{len(empty)} of {len(texts)} texts have no token.",
            where=f"text {empty[0]}, counted from 0",
            do="Leave them out, or encode them with the special tokens of their tokenizer.",
        )
    rows = model.config.vocab_size
    wrong = next((i for i in chain.from_iterable(texts.input_ids) if not 0 <= i < rows), None)
    if wrong is not None:
        raise DataError(
            f"The texts have a token with the id {wrong}; the model has {rows}, from 0.",
            do="Encode them with the model's own tokenizer, after it was trimmed, if it was.",
        )


def batches(rows: list, batch_size: int) -> list[list]:
    """The rows in their order, so many at a time; raises `DataError` for less than one."""
    if not number(batch_size, Integral) >= 1:
        raise DataError(
            f"A batch of {batch_size} texts cannot be read.", do="Take a batch size of 1 or more."
        )
    return [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
