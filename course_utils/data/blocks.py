"""Texts as blocks: token ids of one length, packed without padding, memory-mapped from the cache.

A block is [CLS] t t t [SEP] t t … [SEP]. Documents follow each other with [SEP] between them, and
what does not fit goes on in the next block. So a batch computes nothing for padding, and all that a
corpus loses is the last, unfinished block.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, IterableDataset, List, Value
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from course_utils.data.encoding import MAX_LENGTH
from course_utils.errors import DataError, ModelError
from course_utils.files import new_folder, write_text
from course_utils.machine import cache_dir

SHORTEST = 3  # [CLS], a token, [SEP]
TEXTS_AT_ONCE = 1000
_ROWS, _KEPT = "rows.arrow", "kept.json"


@dataclass(frozen=True)
class Kept:
    """What became of a corpus; `str(kept)` is the line that tells about it."""

    texts: int
    tokens: int  # of the texts, without [CLS] and [SEP]
    lost: int  # tokens at the end that fill no block
    blocks: int
    length: int

    @property
    def share(self) -> float:
        """The share of the corpus's tokens that stand in the blocks, 0 to 1."""
        return 1 - self.lost / self.tokens

    def __str__(self) -> str:
        return (
            f"{self.blocks:,} blocks of {self.length} tokens hold {self.share:.3%} of the "
            f"{self.tokens:,} tokens of {self.texts:,} texts; the last {self.lost} fill no block."
        )


def to_blocks(
    texts: Dataset | IterableDataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    length: int = MAX_LENGTH,
    say: Callable[[str], object] = print,
) -> Dataset | IterableDataset:
    """The column `text` as blocks: rows of `input_ids`, each of `length` ids (int32).

    A `Dataset` becomes an Arrow file in the course's cache, read where it lies; it is not made
    again for equal texts, tokenizer and length, and the share kept is said. An `IterableDataset`
    stays a stream, for one reader at a time.

    Raises `DataError` for a corpus without text or shorter than one block, and for a length below 3
    or above what the tokenizer is made for; `ModelError` for a tokenizer without [CLS] and [SEP].
    """
    _check(texts, tokenizer, length)
    pack = _Packer(tokenizer, length)
    if isinstance(texts, IterableDataset):
        blocks = _map(texts, pack)
        if next(iter(blocks.take(1)), None) is None:
            raise _too_short(pack.kept)
        return blocks
    key = _key(texts, pack)

    def write(file: Path) -> None:
        options = {"cache_file_name": str(file), "load_from_cache_file": False}
        _map(texts, pack, desc="packing blocks", new_fingerprint=key, **options)
        if not pack.kept.blocks:
            raise _too_short(pack.kept)
        write_text(file.with_name(_KEPT), json.dumps(asdict(pack.kept)))

    blocks = on_disk(cache_dir() / "blocks" / key, write)
    say(str(kept(blocks)))
    return blocks


def on_disk(folder: Path, write: Callable[[Path], object]) -> Dataset:
    """The rows of an Arrow file in `folder`, read where it lies; the folder's name is the key.

    A file that is missing or damaged is made by `write(file)`, in a folder that takes its place.
    """
    try:
        return _open(folder)
    except (OSError, ValueError):
        with new_folder(folder) as work:
            write(work / _ROWS)
        return _open(folder)


def _open(folder: Path) -> Dataset:
    return Dataset(Dataset.from_file(str(folder / _ROWS)).data, fingerprint=folder.name)


def kept(blocks: Dataset) -> Kept:
    """What `to_blocks` noted beside the blocks: texts, tokens, tokens lost."""
    file = Path(blocks.cache_files[0]["filename"]).with_name(_KEPT)
    return Kept(**json.loads(file.read_text(encoding="utf-8")))


def token_frequencies(blocks: Dataset, vocab_size: int) -> np.ndarray:
    """How often each token stands in the blocks, (V,) int64; `DataError` for ids beyond V."""
    counts = np.zeros(vocab_size, np.int64)
    for rows in blocks.with_format("arrow").iter(batch_size=2**16):
        ids = as_array(rows)
        check_ids(ids, vocab_size)
        counts += np.bincount(ids.ravel(), minlength=vocab_size)
    return counts


def as_array(rows) -> np.ndarray:
    """The `input_ids` of some rows of an Arrow table, (B, S), all of one length."""
    return rows["input_ids"].combine_chunks().flatten().to_numpy().reshape(len(rows), -1)


def check_ids(ids: np.ndarray, vocab_size: int) -> None:
    """Nothing; raises `DataError` for an id that is not 0 to `vocab_size` - 1."""
    wrong = ids[(ids < 0) | (ids >= vocab_size)]
    if len(wrong):
        raise DataError(
            f"The id {wrong[0]} is not in a vocabulary of {vocab_size}.",
            do="Make the blocks with the tokenizer that you give here.",
        )


class _Packer:
    """Called with one batch of texts after the other; keeps what is left for the next batch."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, length: int):
        self.cls, self.sep, self.length = tokenizer.cls_token_id, tokenizer.sep_token_id, length
        # A copy: callers leave their truncation and padding in a tokenizer.
        self.words = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self.words.no_truncation()
        self.words.no_padding()
        self._start()

    def _start(self) -> None:
        self.stream: list[int] = []
        self.texts = self.tokens = self.blocks = 0

    def __call__(self, batch: dict, numbers: list[int]) -> dict[str, np.ndarray]:
        if numbers[0] == 0:  # a stream that is read again starts anew
            self._start()
        room = self.length - 2  # within [CLS] and [SEP]
        for ids in self._encode(batch["text"], numbers[0]):
            if ids and len(self.stream) % room:  # not where a block begins
                self.stream.append(self.sep)
            self.stream += ids
            self.tokens += len(ids)
        self.texts += len(numbers)
        whole = len(self.stream) // room
        blocks = np.full((whole, self.length), self.sep, np.int32)
        blocks[:, 0] = self.cls
        blocks[:, 1:-1] = np.reshape(self.stream[: whole * room], (whole, room))
        del self.stream[: whole * room]
        self.blocks += whole
        return {"input_ids": blocks}

    def _encode(self, texts: list[str], first: int) -> list[list[int]]:
        if wrong := [n for n, text in enumerate(texts, start=first) if not isinstance(text, str)]:
            raise DataError(
                "A row of the corpus has no text.",
                where=f"row {wrong[0]}, counted from 0",
                do="Leave out the rows whose column `text` is not a string.",
            )
        # A text that speaks of [SEP] or [MASK] means the word, not the token.
        self.words.encode_special_tokens = True
        encoded = self.words.encode_batch_fast(texts, add_special_tokens=False)
        return [each.ids for each in encoded]

    @property
    def kept(self) -> Kept:
        lost = sum(token != self.sep for token in self.stream)
        return Kept(self.texts, self.tokens, lost, self.blocks, self.length)


def _map(texts: Dataset | IterableDataset, pack: _Packer, **options) -> Dataset | IterableDataset:
    """Texts into blocks, in order and in one process: what is left is carried on."""
    return texts.select_columns("text").map(
        pack,
        batched=True,
        batch_size=TEXTS_AT_ONCE,
        with_indices=True,
        remove_columns=["text"],
        features=Features({"input_ids": List(Value("int32"), length=pack.length)}),
        **options,
    )


def _key(texts: Dataset, pack: _Packer) -> str:
    """What the blocks depend on: this code, the texts, how they are split, and the length."""
    code = Path(__file__).read_text(encoding="utf-8")
    parts = [code, texts._fingerprint, pack.words.to_str(), pack.cls, pack.sep, pack.length]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _check(
    texts: Dataset | IterableDataset, tokenizer: PreTrainedTokenizerBase, length: int
) -> None:
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        raise ModelError(
            "This tokenizer has no [CLS] or no [SEP].", do="Take the tokenizer of a BERT."
        )
    longest = tokenizer.model_max_length
    if not SHORTEST <= length <= longest:
        raise DataError(
            f"Blocks of {length} tokens cannot be made: this tokenizer's model reads {SHORTEST} to "
            f"{longest}.",
            do=f"Take {SHORTEST} to {longest}; 64 or 128 are usual.",
        )
    if "text" not in (texts.column_names or ["text"]):
        raise DataError(
            "The corpus has no column `text`.",
            where=f"its columns: {', '.join(texts.column_names)}",
            do='Rename the column that holds the texts: rename_column("…", "text").',
        )
    if isinstance(texts, Dataset) and not len(texts):
        raise DataError("The corpus is empty.", do="Give at least one text.")


def _too_short(kept: Kept) -> DataError:
    return DataError(
        f"The corpus has {kept.tokens} tokens, which do not fill one block of {kept.length}.",
        do="Give more text, or a smaller length.",
    )
