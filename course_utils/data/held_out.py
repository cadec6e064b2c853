"""Corpora in two parts that share no document: blocks to train on, and blocks to be asked about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from datasets import Dataset, IterableDataset, concatenate_datasets, interleave_datasets
from transformers import PreTrainedTokenizerBase

from course_utils.data.blocks import to_blocks
from course_utils.data.corpus import read_corpus
from course_utils.data.encoding import MAX_LENGTH
from course_utils.errors import DataError

OF_A_STREAM = 1000  # documents
OF_A_FILE = 0.05  # share of its documents
SHUFFLED_TOGETHER = 10_000  # blocks of a stream


def split_blocks(
    corpora: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    length: int = MAX_LENGTH,
    seed: int = 0,
    say: Callable[[str], object] = print,
) -> tuple[Dataset | IterableDataset, Dataset]:
    """The corpora's blocks to train on, and their held-out blocks, as `to_blocks` makes them.

    Held out is the split dev. A single file and a stream have none: of a file the first 5 % of the
    documents are held out, of a stream the first 1000. Where one corpus is a stream all are: blocks
    are taken from them in turns, a corpus that ends early is read again, and 10,000 blocks at a
    time are shuffled. Raises `DataError` as `read_corpus` and `to_blocks` do, and for a file with
    one document.
    """
    parts = [_two_parts(name, say) for name in corpora]
    trained_on, held_out = zip(*parts, strict=True)
    options = {"tokenizer": tokenizer, "length": length}
    if all(isinstance(texts, Dataset) for texts in trained_on):
        blocks = to_blocks(concatenate_datasets([*trained_on]), say=say, **options)
    else:
        streams = [to_blocks(_as_stream(texts), **options) for texts in trained_on]
        blocks = interleave_datasets(streams, stopping_strategy="all_exhausted")
        blocks = blocks.shuffle(seed=seed, buffer_size=SHUFFLED_TOGETHER)
    try:
        asked = to_blocks(
            concatenate_datasets([*held_out]), say=lambda line: say(f"Held out: {line}"), **options
        )
    except DataError as error:
        raise DataError(error.what, where="what is held out", do=error.do) from error
    return blocks, asked


def _two_parts(
    name: str, say: Callable[[str], object]
) -> tuple[Dataset | IterableDataset, Dataset]:
    """The documents of a corpus to train on, and those held out."""
    texts = read_corpus(name, say=say)
    if isinstance(texts, IterableDataset):
        say(f"Its first {OF_A_STREAM} documents are held out.")
        return texts.skip(OF_A_STREAM), Dataset.from_list([*texts.take(OF_A_STREAM)])
    if not Path(name).expanduser().is_file():
        return texts, read_corpus(name, split="dev", say=str)
    if len(texts) < 2:
        raise DataError(
            "This file has one document, and one has to be held out.",
            where=name,
            do="Put a blank line between documents.",
        )
    n_held_out = max(1, round(OF_A_FILE * len(texts)))
    say(f"Its first {n_held_out} of {len(texts)} documents are held out.")
    return texts.select(range(n_held_out, len(texts))), texts.select(range(n_held_out))


def _as_stream(texts: Dataset | IterableDataset) -> IterableDataset:
    return texts.to_iterable_dataset() if isinstance(texts, Dataset) else texts
