"""Blocks: against a packer that puts down one token after the other, and what is refused."""

from __future__ import annotations

import errno
import os
import re
from collections import Counter

import numpy as np
import pytest
from datasets import Dataset, IterableDataset
from transformers import AutoTokenizer

from course_utils.data import blocks as room
from course_utils.data.blocks import kept, to_blocks, token_frequencies
from course_utils.errors import DataError, ModelError, OutputError

PAD, UNK, CLS, SEP, MASK = range(5)
VOCABULARY = 120


@pytest.fixture
def tokenizer(tiny_teacher_folder):
    return AutoTokenizer.from_pretrained(tiny_teacher_folder)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of the course."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def texts(some_texts) -> list[str]:
    """Texts of many lengths; some are empty."""
    return ["", *some_texts[:7], " \n", *some_texts[7:], ""]


def corpus(texts: list[str]) -> Dataset:
    return Dataset.from_dict({"text": texts, "source": ["here"] * len(texts)})


def blocks_of(texts: list[str], tokenizer, **options) -> list[list[int]]:
    return to_blocks(corpus(texts), tokenizer, say=str, **options)["input_ids"][:]


def stream_of(*parts: list[str]) -> IterableDataset:
    """A stream whose columns nobody knows beforehand."""
    return IterableDataset.from_generator(lambda: ({"text": t} for part in parts for t in part))


def token_by_token(documents: list[list[int]], length: int) -> tuple[list[list[int]], int]:
    """The blocks, and how many tokens are left at the end."""
    blocks: list[list[int]] = []
    open_block, n_left = [CLS], 0
    for ids in documents:
        for k, token in enumerate(ids):
            for each in [SEP, token] if k == 0 and len(open_block) > 1 else [token]:
                open_block.append(each)
                n_left += each != SEP
                if len(open_block) == length - 1:
                    blocks.append([*open_block, SEP])
                    open_block, n_left = [CLS], 0
    return blocks, n_left


def plain_ids(texts: list[str], tokenizer) -> list[list[int]]:
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


# --- packing ---


@pytest.mark.parametrize("at_once", [1, 3, 1000])
@pytest.mark.parametrize("length", [3, 4, 7, 20, 64])
def test_blocks_are_those_of_the_obvious_packer(length, at_once, texts, tokenizer, monkeypatch):
    monkeypatch.setattr(room, "TEXTS_AT_ONCE", at_once)
    documents = plain_ids(texts, tokenizer)
    expected, n_left = token_by_token(documents, length)
    blocks = to_blocks(corpus(texts), tokenizer, length=length, say=str)
    assert blocks["input_ids"][:] == expected
    assert blocks.column_names == ["input_ids"]
    assert len(expected) > 10
    report = kept(blocks)
    n_tokens = sum(map(len, documents))
    assert (report.texts, report.tokens) == (len(texts), n_tokens)
    assert (report.lost, report.blocks, report.length) == (n_left, len(expected), length)
    assert report.share == pytest.approx(1 - n_left / n_tokens)


def test_the_tokens_of_the_corpus_stand_in_the_blocks_in_order(texts, tokenizer):
    flat = [token for block in blocks_of(texts, tokenizer, length=16) for token in block]
    tokens = [token for token in flat if token not in (CLS, SEP)]
    everything = [token for ids in plain_ids(texts, tokenizer) for token in ids]
    assert tokens == everything[: len(tokens)]
    assert len(everything) - len(tokens) < 14


def test_between_two_documents_stands_one_separator(tokenizer):
    one, two = plain_ids(["the line", "Plot the line"], tokenizer)
    length = len(one) + 1 + len(two) + 2
    blocks = blocks_of(["the line", "Plot the line"] * 3, tokenizer, length=length)
    # Where a block begins with a document, no separator stands before it.
    assert blocks == [[CLS, *one, SEP, *two, SEP]] * 3


def test_a_text_that_speaks_of_special_tokens_means_the_words(tokenizer):
    text = "[SEP] [MASK] the [CLS] line [PAD] [UNK]"
    (block,) = blocks_of([text], tokenizer, length=3 + 10)[:1]
    assert not {PAD, CLS, SEP, MASK} & set(block[1:-1])
    assert tokenizer("[MASK]", add_special_tokens=False)["input_ids"] == [MASK]


def test_the_share_kept_is_said(texts, tokenizer):
    said: list[str] = []
    blocks = to_blocks(corpus(texts), tokenizer, length=20, say=said.append)
    (line,) = said
    n_tokens = sum(map(len, plain_ids(texts, tokenizer)))
    assert line.startswith(f"{len(blocks)} blocks of 20 tokens hold {kept(blocks).share:.3%} of ")
    assert f"the {n_tokens:,} tokens of {len(texts)} texts" in line
    assert line.endswith(f"the last {kept(blocks).lost} fill no block.")


# --- streams ---


@pytest.mark.parametrize("known", [True, False])
def test_a_stream_has_the_same_blocks_each_time_it_is_read(known, texts, tokenizer, monkeypatch):
    monkeypatch.setattr(room, "TEXTS_AT_ONCE", 4)
    stream = corpus(texts).to_iterable_dataset() if known else stream_of(texts)
    blocks = to_blocks(stream, tokenizer, length=20)
    assert isinstance(blocks, IterableDataset)
    expected = blocks_of(texts, tokenizer, length=20)
    for _ in range(2):
        rows = list(blocks)
        assert [list(row) for row in rows] == [["input_ids"]] * len(rows)
        assert [list(row["input_ids"]) for row in rows] == expected


def test_a_stream_is_read_no_further_than_the_first_batch(tokenizer, monkeypatch):
    monkeypatch.setattr(room, "TEXTS_AT_ONCE", 4)
    read = []

    def endless():
        while True:
            read.append(1)
            yield {"text": "Plot the line."}

    blocks = to_blocks(IterableDataset.from_generator(endless), tokenizer, length=8)
    assert len(read) <= 8
    assert len(list(blocks.take(50))) == 50


# --- the cache ---


def test_blocks_are_made_once_and_read_where_they_lie(texts, tokenizer, cache, monkeypatch):
    first = to_blocks(corpus(texts), tokenizer, length=20, say=str)
    (file,) = [entry["filename"] for entry in first.cache_files]
    assert file.startswith(str(cache))
    assert first.features["input_ids"].length == 20
    assert first.features["input_ids"].feature.dtype == "int32"
    tokenizer("the", truncation=True, max_length=4)  # leaves its mark in the tokenizer
    monkeypatch.setattr(room._Packer, "__call__", pytest.fail)
    again = to_blocks(corpus(texts), tokenizer, length=20, say=str)
    assert again["input_ids"][:] == first["input_ids"][:]
    assert again._fingerprint == first._fingerprint
    assert kept(again) == kept(first)


def test_other_texts_length_or_tokenizer_make_other_blocks(texts, tokenizer, tiny_teacher_folder):
    other = AutoTokenizer.from_pretrained(tiny_teacher_folder)
    other.backend_tokenizer.normalizer = None
    made = [
        to_blocks(corpus(some), tok, length=length, say=str)
        for some, tok, length in (
            (texts, tokenizer, 20),
            (texts[::-1], tokenizer, 20),
            (texts, tokenizer, 21),
            (texts, other, 20),
        )
    ]
    assert len({str(blocks["input_ids"][:]) for blocks in made}) == 4
    assert len({blocks._fingerprint for blocks in made}) == 4


@pytest.mark.parametrize("keep", [0, 0.5])
def test_a_damaged_file_is_made_again(keep, texts, tokenizer):
    first = to_blocks(corpus(texts), tokenizer, length=20, say=str)
    expected = first["input_ids"][:]
    file = first.cache_files[0]["filename"]
    del first
    size = os.path.getsize(file)
    with open(file, "rb+") as content:
        content.truncate(int(keep * size))
    again = to_blocks(corpus(texts), tokenizer, length=20, say=str)
    assert again["input_ids"][:] == expected


def test_a_full_disk_is_told_and_leaves_nothing_behind(texts, tokenizer, cache, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Dataset, "map", full)
    with pytest.raises(OutputError, match="Free some space"):
        to_blocks(corpus(texts), tokenizer, length=20, say=str)
    assert not [path for path in cache.rglob("*") if path.is_file()]


# --- refused ---


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([], "empty|has 0 tokens"),
        (["", " "], "has 0 tokens, which do not fill one block of 20"),
        (["the line"], "which do not fill one block of 20"),
    ],
)
def test_too_little_text(texts, said, stream, tokenizer, cache):
    some = stream_of(texts) if stream else corpus(texts)
    with pytest.raises(DataError, match=said):
        to_blocks(some, tokenizer, length=20)
    assert not [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize("stream", [False, True])
def test_a_row_that_is_no_text_is_named(stream, texts, tokenizer, monkeypatch):
    monkeypatch.setattr(room, "TEXTS_AT_ONCE", 4)
    texts = [*texts[:6], None, *texts[6:]]
    with pytest.raises(DataError, match="row 6, counted from 0"):
        list(to_blocks(stream_of(texts) if stream else corpus(texts), tokenizer, length=64))


def test_a_column_of_another_name(tokenizer):
    with pytest.raises(DataError, match="no column `text`") as error:
        to_blocks(Dataset.from_dict({"body": ["the line"]}), tokenizer, length=20)
    assert error.value.where == "its columns: body"


@pytest.mark.parametrize("length", [-1, 0, 2, 65, 128])
def test_a_length_the_model_does_not_read(length, texts, tokenizer):
    assert tokenizer.model_max_length == 64
    with pytest.raises(DataError, match=f"Blocks of {length} tokens .* reads 3 to 64"):
        to_blocks(corpus(texts), tokenizer, length=length)


@pytest.mark.parametrize("name", ["cls_token", "sep_token"])
def test_a_tokenizer_that_is_no_berts(name, texts, tokenizer):
    setattr(tokenizer, name, None)
    with pytest.raises(ModelError, match=re.escape("no [CLS] or no [SEP]")):
        to_blocks(corpus(texts), tokenizer, length=20)


# --- frequencies ---


def test_frequencies_are_counted(texts, tokenizer):
    blocks = to_blocks(corpus(texts), tokenizer, length=20, say=str)
    counts = Counter(token for block in blocks["input_ids"][:] for token in block)
    frequencies = token_frequencies(blocks, VOCABULARY)
    assert frequencies.shape == (VOCABULARY,)
    assert dict(counts) == {k: n for k, n in enumerate(frequencies.tolist()) if n}


@pytest.mark.parametrize("junk", [-1, VOCABULARY])
def test_an_id_beyond_the_vocabulary(junk):
    blocks = Dataset.from_dict({"input_ids": np.array([[5, junk, 6]])})
    with pytest.raises(DataError, match=f"The id {junk} is not in a vocabulary of {VOCABULARY}"):
        token_frequencies(blocks, VOCABULARY)
