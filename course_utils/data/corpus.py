"""A corpus by its name: PyDocs, a set of the mirror, text files, or a stream from the Hub."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from datasets import Dataset, IterableDataset, load_dataset

from course_utils.data import hub, pydocs, sources
from course_utils.data.blocks import on_disk
from course_utils.data.sources import Found
from course_utils.data.tasks import SPLIT_NAMES
from course_utils.errors import DataError
from course_utils.files import sha256
from course_utils.machine import cache_dir

DOCUMENTS_AT_ONCE = 1000


class OnHub(NamedTuple):
    """Where a large corpus lies on the Hub."""

    repo: str
    config: str | None = None
    revision: str | None = None


# What BERT and DistilBERT read. BookCorpus is taken as the Hub converted it, a sentence per row.
KNOWN = {
    "wikipedia": OnHub(
        "wikimedia/wikipedia", "20231101.en", "b04c8d1ceb2f5cd4588862100d08de323dccfbaa"
    ),
    "bookcorpus": OnHub("bookcorpus/bookcorpus", "plain_text", "refs/convert/parquet"),
}


def read_corpus(
    name: str | Path, *, split: str = "train", say: Callable[[str], object] = print
) -> Dataset | IterableDataset:
    """The documents of a corpus, one per row of the column `text`.

    `name` is looked for in this order: a .txt file or a folder of them; a set of the mirror, such
    as wikitext2; pydocs, all its paragraphs; on the Hub, wikipedia, bookcorpus or an id, read as a
    stream. `split` is train, dev or test. In text files a blank line ends a document, as in those
    BERT was trained on; WikiText's documents are its articles. Files called train, dev (valid) and
    test are these splits; without them all files are train.

    Raises `DataError` for what is not there, holds no text, has no such split or is not UTF-8
    (naming file and byte), and when the Hub does not answer.
    """
    if split not in SPLIT_NAMES:
        raise DataError(f"There is no split {split!r}.", do=f"Take {', '.join(SPLIT_NAMES)}.")
    asked = os.fspath(name)
    path = Path(asked).expanduser()
    if path.exists() or isinstance(name, Path) or asked.endswith(".txt"):
        found = Found(asked, path, "path")
    else:
        sources.check_name(asked, DataError)
        folder = sources.in_mirror("data", asked)
        if not folder and asked == "pydocs":
            return _pydocs(split, say)
        if not folder:
            return _stream(KNOWN.get(asked, OnHub(asked)), split, say)
        found = Found(asked, folder, "mirror")
    say(str(found))
    return _read(_text_files(found.path, split))


def _pydocs(split: str, say: Callable[[str], object]) -> Dataset:
    say(str(Found("pydocs", cache_dir() / "pydocs", "built-in")))
    corpus = pydocs.corpus()
    splits = corpus.with_format("arrow")["split"][:].to_numpy(zero_copy_only=False)
    return corpus.select(np.flatnonzero(splits == split)).select_columns("text")


# --- text files ---


def _text_files(path: Path, split: str) -> list[Path]:
    """The files that hold the split, in the order of their names."""
    files = [path] if path.is_file() else sorted(path.rglob("*.txt"))
    if not files or files[0].suffix != ".txt":
        raise DataError(
            "There is no text file here." if path.exists() else "There is no such file or folder.",
            where=path,
            do="Give a .txt file in UTF-8, or a folder of them.",
        )
    here = {name: [f for f in files if f.stem.lower() in SPLIT_NAMES[name]] for name in SPLIT_NAMES}
    if path.is_file() or not here["train"]:
        here = {"train": files}
    if not here.get(split):
        raise DataError(
            f"There is no split {split!r} here, only {', '.join(k for k, v in here.items() if v)}.",
            where=path,
            do="Name the files train.txt, dev.txt and test.txt, in one folder.",
        )
    return here[split]


def _read(files: list[Path]) -> Dataset:
    """The documents of the files as an Arrow file in the cache, which is read where it lies."""
    code = Path(__file__).read_text(encoding="utf-8")
    parts = [code, [(_documents_of(file).__name__, sha256(file)) for file in files]]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    documents = (text for file in files for text in _documents_of(file)(_lines(file)))
    corpus = on_disk(cache_dir() / "corpus" / key, lambda file: _write(file, documents))
    if not len(corpus):
        raise DataError(
            "There is no text in it.",
            where=", ".join(map(str, files[:3])),
            do="Give a file with at least one line of text.",
        )
    return corpus


def _write(file: Path, texts: Iterator[str]) -> None:
    schema = pa.schema({"text": pa.string()})
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        while some := list(islice(texts, DOCUMENTS_AT_ONCE)):
            writer.write(pa.record_batch({"text": some}, schema=schema))


def _lines(file: Path) -> Iterator[str]:
    """The lines of a UTF-8 file; raises `DataError` that names the first byte that is not."""
    at = 0
    with open(file, "rb") as content:
        for number, line in enumerate(content, start=1):
            wrong = line.find(0)  # no text has it; UTF-16 is full of it
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                wrong = error.start
            if wrong >= 0:
                raise DataError(
                    f"The byte 0x{line[wrong]:02x} is not UTF-8 text.",
                    where=f"{file}, line {number}, byte {at + wrong} of the file, counted from 0",
                    do="Save the file as UTF-8 text.",
                )
            yield text
            at += len(line)


def _documents_of(file: Path) -> Callable[[Iterable[str]], Iterator[str]]:
    return _articles if file.absolute().parent.name.startswith("wikitext") else _paragraphs


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    """What stands between blank lines, each on one line."""
    return (" ".join(lines) for lines in _between_blanks(lines))


def _articles(lines: Iterable[str]) -> Iterator[str]:
    """WikiText's articles as plain text; " = Title = " between blank lines begins one.

    Its words were cut for counting: "@-@" was a hyphen, "<unk>" a rare word. That is ⍰ here, which
    BERT's vocabulary lacks as well: its tokenizer reads [UNK].
    """
    article: list[str] = []
    for lines_of_part in _between_blanks(lines):
        heading = re.fullmatch(r"((?:= )+)([^=]+)( =)+", lines_of_part[0])
        if heading and len(lines_of_part) == 1:
            if heading[1] == "= " and article:
                yield " ".join(article)
                article = []
            lines_of_part = [heading[2]]
        part = " ".join(lines_of_part).replace("<unk>", "⍰")
        article.append(re.sub(r" @(.)@ ", r"\1", part))
    if article:
        yield " ".join(article)


def _between_blanks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Lines that follow each other without a blank line, stripped."""
    for is_text, some in groupby(map(str.strip, lines), key=bool):
        if is_text:
            yield list(some)


# --- the Hub ---


def _stream(where: OnHub, split: str, say: Callable[[str], object]) -> IterableDataset:
    """The split as it comes from the Hub, row by row; nothing is kept on disk."""
    names = {"dev": "validation"}
    options = {"revision": where.revision, "streaming": True}
    try:
        _ask(where)
        texts = load_dataset(where.repo, where.config, split=names.get(split, split), **options)
        texts = texts.select_columns("text")
    except Exception as error:  # the client has many kinds, from a missing split to a lost network
        raise DataError(
            f"No corpus {where.repo!r}: {_reason(error)}.",
            do="Take pydocs, which needs no network, a set of the mirror that COURSE_MIRROR names, "
            "or the path of a .txt file.",
        ) from None
    say(str(Found(where.repo, Path(), "hub", "as a stream")))
    return texts


def _ask(where: OnHub) -> None:
    """Nothing if the Hub answers in time, else `HubTrouble`: the client alone would wait long.

    One clock decides: two of the same length would give two answers.
    """
    from huggingface_hub import HfApi

    if hub.is_offline():
        raise hub.HubTrouble("HF_HUB_OFFLINE is set, so nobody was asked")
    answers: queue.Queue[Exception | None] = queue.Queue()

    def ask() -> None:
        try:
            HfApi().dataset_info(where.repo, revision=where.revision)
            answers.put(None)
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        error = answers.get(timeout=hub.ANSWER_S)
    except queue.Empty:
        raise hub.HubTrouble(f"the Hub did not answer within {hub.ANSWER_S:g} s") from None
    if error is not None:
        raise error


def _reason(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return hub.REFUSALS.get(status, first_line).rstrip(".")
