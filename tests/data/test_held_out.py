"""Corpora in two parts: what is held out is never trained on, and all else is."""

from __future__ import annotations

import pytest
from datasets import Dataset
from tiny import write_tokenizer
from transformers import AutoTokenizer

from course_utils.data import held_out
from course_utils.data.held_out import split_blocks
from course_utils.errors import DataError

DOCUMENTS = [f"the row {k} holds the sum" for k in range(60)]


@pytest.fixture
def tokenizer(tmp_path):
    write_tokenizer(tmp_path / "words", 120)
    return AutoTokenizer.from_pretrained(tmp_path / "words")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))


def write(file, documents):
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n\n".join(documents))
    return str(file)


def words(blocks, tokenizer, documents):
    """Blocks as one text, and the documents as the tokenizer spells them, as far as blocks go."""
    ours = [token for row in blocks for token in row["input_ids"][1:-1]]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in documents]
    theirs = [token for text in ids for token in [*text, tokenizer.sep_token_id]]
    # A document that begins a block has no [SEP] before it.
    drop = tokenizer.sep_token_id
    ours, theirs = ([t for t in each if t != drop] for each in (ours, theirs))
    return ours, theirs[: len(ours)], len(theirs) - len(ours)


def test_a_folder_has_its_own_dev_split(tmp_path, tokenizer):
    folder = tmp_path / "corpus"
    write(folder / "train.txt", DOCUMENTS[:50])
    write(folder / "dev.txt", DOCUMENTS[50:])
    lines = []
    blocks, asked = split_blocks([str(folder)], tokenizer, length=10, say=lines.append)
    for part, documents in ((blocks, DOCUMENTS[:50]), (asked, DOCUMENTS[50:])):
        ours, theirs, lost = words(part, tokenizer, documents)
        assert ours == theirs
        assert lost < 8
    assert lines[-1].startswith("Held out: ")


def test_of_a_file_the_first_documents_are_held_out(tmp_path, tokenizer):
    file, lines = write(tmp_path / "a.txt", DOCUMENTS), []
    blocks, asked = split_blocks([file], tokenizer, length=10, say=lines.append)
    for part, documents in ((blocks, DOCUMENTS[3:]), (asked, DOCUMENTS[:3])):
        ours, theirs, lost = words(part, tokenizer, documents)
        assert ours == theirs
        assert lost < 8
    assert "Its first 3 of 60 documents are held out." in lines


def test_several_corpora_are_one(tmp_path, tokenizer):
    files = [write(tmp_path / f"{k}.txt", DOCUMENTS[k * 20 : k * 20 + 20]) for k in (0, 1)]
    blocks, asked = split_blocks(files, tokenizer, length=8, say=str)
    ours, theirs, lost = words(blocks, tokenizer, DOCUMENTS[1:20] + DOCUMENTS[21:40])
    assert (ours, lost < 6) == (theirs, True)
    ours, theirs, _ = words(asked, tokenizer, [DOCUMENTS[0], DOCUMENTS[20]])
    assert ours == theirs


def test_one_document_cannot_be_divided(tmp_path, tokenizer):
    file = write(tmp_path / "a.txt", DOCUMENTS[:1])
    with pytest.raises(DataError, match="one document") as error:
        split_blocks([file], tokenizer, length=8, say=str)
    assert error.value.where == file


@pytest.mark.parametrize("n_second", [100, 50])
def test_streams_are_read_in_turns_and_shuffled(tmp_path, tokenizer, monkeypatch, n_second):
    """A stream, and another or a folder, which becomes one; a block holds three documents."""
    texts = {"one": ["the"] * 1100, "two": ["a"] * (1000 + n_second)}
    find = held_out.read_corpus

    def read_corpus(name, **options):
        if name not in texts:
            return find(name, **options)
        return Dataset.from_dict({"text": texts[name]}).to_iterable_dataset()

    monkeypatch.setattr(held_out, "read_corpus", read_corpus)
    write(tmp_path / "two" / "train.txt", ["a"] * n_second)
    write(tmp_path / "two" / "dev.txt", ["a"] * 1000)
    the, a = tokenizer.convert_tokens_to_ids(["the", "a"])
    for second in ("two", str(tmp_path / "two")):
        blocks, asked = split_blocks(["one", second], tokenizer, length=7, say=str)
        rows = [[int(token) for token in row["input_ids"]] for row in blocks]
        assert rows == [[int(token) for token in row["input_ids"]] for row in blocks]
        kinds = [row[1] for row in rows]
        assert all(row[1] == row[3] == row[5] for row in rows)
        assert kinds.count(the) == pytest.approx(33, abs=1)
        assert kinds.count(a) == pytest.approx(33, abs=1)  # a shorter one is read again
        assert kinds[:20] not in ([the, a] * 10, [a, the] * 10)
        held = [token for row in asked for token in row["input_ids"]]
        assert held.count(the) == pytest.approx(1000, abs=2)
        assert held.count(a) == pytest.approx(1000, abs=2)
