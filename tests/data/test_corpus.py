"""A corpus by its name: from PyDocs, text files, a mirror, and a Hub on loopback."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import fake_hub
import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import Dataset
from fake_hub import FakeHub, commit

from course_utils.data import corpus as room
from course_utils.data import hub, pydocs
from course_utils.data.corpus import read_corpus
from course_utils.errors import DataError

BESIDE = Path(__file__).parents[3] / "shared"
REAL_MIRROR = Path(os.environ.get("COURSE_MIRROR") or BESIDE).expanduser().absolute()
SPLITS = ("train", "dev", "test")
WIKI = """
 = First =

 The rain @-@ wet <unk> , 1 @,@ 234 <unk> @-@ like men .
 He = she :
 = 1 =

 = = Part = =

 More .

 = Second one =

 Text .
"""


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No mirror, empty caches, and a Hub address where nobody listens."""
    for name in ("COURSE_MIRROR", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "course"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)


def texts(name: str | Path, **options) -> list[str]:
    return read_corpus(name, say=str, **options)["text"][:]


def write(file: Path, content: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


# --- text files ---


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_blank_line_ends_a_document(newline, tmp_path):
    lines = ["", "One line ", "  and two.", " \t ", "", "Three é.", "", "Last, without an end"]
    write(tmp_path / "a.txt", newline.join(lines))
    expected = ["One line and two.", "Three é.", "Last, without an end"]
    assert texts("a.txt") == texts(tmp_path / "a.txt") == expected


def test_the_mark_at_the_beginning_is_no_text(tmp_path):
    write(tmp_path / "a.txt", b"\xef\xbb\xbfOne.\n\nTwo.")
    assert texts("a.txt") == ["One.", "Two."]


def test_many_documents_keep_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "DOCUMENTS_AT_ONCE", 7)
    expected = [f"Document {k}." for k in range(50)]
    write(tmp_path / "a.txt", "\n\n".join(expected))
    assert texts("a.txt") == expected


def test_a_folder_is_read_file_by_file(tmp_path):
    for name in ("b.txt", "a.txt", "deep/c.txt"):
        write(tmp_path / "books" / name, f"In {name}.")
    write(tmp_path / "books" / "notes.md", "Not this.")
    assert texts("books") == ["In a.txt.", "In b.txt.", "In deep/c.txt."]


def test_files_named_by_their_split(tmp_path):
    for name in ("train", "valid", "test", "labels"):
        write(tmp_path / "set" / f"{name}.txt", f"The {name}.")
    assert [texts("set", split=s) for s in SPLITS] == [
        ["The train."],
        ["The valid."],
        ["The test."],
    ]
    assert texts("set/valid.txt") == ["The valid."]


def test_where_it_came_from_is_said_in_one_line(tmp_path, capsys):
    write(tmp_path / "a.txt", "One.")
    read_corpus("a.txt")
    assert capsys.readouterr().out == "Using a.txt, from the path you gave.\n"


def test_a_file_is_kept_as_arrow_until_it_changes(tmp_path, monkeypatch):
    file = write(tmp_path / "a.txt", "One.\n\nTwo.")
    first = read_corpus(file, say=str)
    assert first.cache_files[0]["filename"].startswith(str(tmp_path / "course"))
    with monkeypatch.context() as patch:
        patch.setattr(room, "_write", pytest.fail)
        again = read_corpus(write(tmp_path / "copy.txt", "One.\n\nTwo."), say=str)
    assert again["text"][:] == ["One.", "Two."]
    assert again._fingerprint == first._fingerprint
    write(file, "One.\n\nToo.")
    assert texts(file) == ["One.", "Too."]


@pytest.mark.parametrize(
    ("content", "byte", "line", "at"),
    [
        (b"One.\n\nTw\xff.\n", "0xff", 3, 8),
        (b"caf\xe9\n", "0xe9", 1, 3),
        (b"\xef\xbb\xbfOne.\nTwo \xc3", "0xc3", 2, 12),
        ("One.".encode("utf-16"), "0xff", 1, 0),
        ("One.".encode("utf-16-le"), "0x00", 1, 1),
        (b"One.\nTwo\x00.\n", "0x00", 2, 8),
    ],
)
def test_a_byte_that_is_no_text_is_named(content, byte, line, at, tmp_path):
    assert content[at] == int(byte, 16)
    write(tmp_path / "books" / "a.txt", "Fine.")
    file = write(tmp_path / "books" / "b.txt", content)
    with pytest.raises(DataError, match=f"The byte {byte} is not UTF-8") as error:
        read_corpus("books")
    where = f"{file.relative_to(tmp_path)}, line {line}, byte {at} of the file, counted from 0"
    assert error.value.where == where
    assert not [path for path in (tmp_path / "course").rglob("*") if path.is_file()]


@pytest.mark.parametrize("content", ["", "\n \n\t\n"])
def test_a_file_without_text(content, tmp_path):
    write(tmp_path / "a.txt", content)
    for _ in range(2):
        with pytest.raises(DataError, match="no text in it") as error:
            read_corpus("a.txt")
        assert error.value.where == "a.txt"


def test_what_is_not_there_or_not_read(tmp_path):
    for name in ("none.txt", Path("none"), tmp_path / "none.txt"):
        with pytest.raises(DataError, match="no such file"):
            read_corpus(name)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "a.csv", "text\nOne.")
    for name in ("empty", "a.csv"):
        with pytest.raises(DataError, match="no text file here"):
            read_corpus(name)


def test_a_split_that_is_not_there(tmp_path):
    write(tmp_path / "a.txt", "One.")
    write(tmp_path / "set" / "train.txt", "One.")
    for name in ("a.txt", "set"):
        with pytest.raises(DataError, match="no split 'test' here, only train"):
            read_corpus(name, split="test")
    with pytest.raises(DataError, match="no split 'validation'"):
        read_corpus("a.txt", split="validation")


# --- the mirror, PyDocs ---


def test_wikitext_in_the_mirror_is_read_by_article(tmp_path, monkeypatch):
    write(tmp_path / "mirror" / "data" / "wikitext2" / "train.txt", WIKI)
    monkeypatch.setenv("COURSE_MIRROR", "mirror")
    said: list[str] = []
    assert read_corpus("wikitext2", say=said.append)["text"][:] == [
        "First The rain-wet ⍰ , 1,234 ⍰-like men . He = she : = 1 = Part More .",
        "Second one Text .",
    ]
    assert said == ["Using wikitext2, from COURSE_MIRROR."]


@pytest.mark.parametrize("split", SPLITS)
def test_pydocs_is_all_its_paragraphs_of_a_split(split, monkeypatch):
    rows = [(f"Text {k}.", "numpy", SPLITS[k % 7 % 3]) for k in range(20)]
    columns = zip(("text", "package", "split"), zip(*rows, strict=True), strict=True)
    made = Dataset.from_dict({name: list(column) for name, column in columns})
    monkeypatch.setattr(pydocs, "corpus", lambda **_: made)
    found = read_corpus("pydocs", split=split, say=str)
    assert found.column_names == ["text"]
    assert found["text"][:] == [text for text, _, where in rows if where == split]


@pytest.mark.mirror
@pytest.mark.parametrize(("split", "n_articles"), [("train", 600), ("dev", 60), ("test", 60)])
def test_the_real_wikitext(split, n_articles, monkeypatch):
    if not (REAL_MIRROR / "data" / "wikitext2").is_dir():
        pytest.skip("COURSE_MIRROR is not set and no shared/data lies beside the repository")
    monkeypatch.setenv("COURSE_MIRROR", str(REAL_MIRROR))
    articles = texts("wikitext2", split=split)
    assert len(articles) == n_articles
    assert min(map(len, articles)) > 1000
    assert not any("<unk>" in text or "@-@" in text for text in articles)


# --- the Hub ---


class Handler(fake_hub.Handler):
    """Tells a file that is not there from a repository that is not there."""

    def refuse(self, status: int) -> None:
        if status == 404 and ("/resolve/" in self.path or "/tree/" in self.path):
            self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
        else:
            super().refuse(status)


def rows(**columns: list) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), file)
    return file.getvalue()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fake_hub, "Handler", Handler)
    train = rows(id=list(range(30)), text=[f"Text {k}." for k in range(30)])
    files = {"train.parquet": train, "validation.parquet": rows(id=[0], text=["Held out."])}
    other = {"train.parquet": rows(body=["No text."])}
    with FakeHub({("dataset", "tiny/texts"): files, ("dataset", "tiny/other"): other}) as server:
        yield server


def from_the_hub(server: FakeHub, code: str) -> str:
    """What the code prints in a process of its own: the client reads its settings when imported."""
    start = "from course_utils.data import corpus\nfrom course_utils.data.corpus import *\n"
    quiet = {"HF_ENDPOINT": server.url, "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", start + code],
        env=os.environ | quiet | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_corpus_on_the_hub_is_a_stream_of_its_texts(server):
    revision = commit(server.repos["dataset", "tiny/texts"])
    said = from_the_hub(
        server,
        "texts = read_corpus('tiny/texts')\n"
        "print(type(texts).__name__, [row for row in texts.take(2)], len(list(texts)))\n"
        "print(list(read_corpus('tiny/texts', split='dev', say=str)))\n"
        f"corpus.KNOWN['known'] = OnHub('tiny/texts', None, {revision!r})\n"
        "print(len(list(read_corpus('known', say=str))))\n",
    )
    assert said.splitlines() == [
        "Using tiny/texts, from the Hub, as a stream.",
        "IterableDataset [{'text': 'Text 0.'}, {'text': 'Text 1.'}] 30",
        "[{'text': 'Held out.'}]",
        "30",
    ]
    assert f"GET /api/datasets/tiny/texts/revision/{revision}" in server.requests


def test_what_the_hub_cannot_give_is_said(server):
    said = from_the_hub(
        server,
        "for name, split in (('a/b', 'train'), ('tiny/texts', 'test'), ('tiny/other', 'train')):\n"
        "    try:\n"
        "        read_corpus(name, split=split)\n"
        "    except DataError as error:\n"
        "        print(error.what)\n",
    )
    none, no_split, no_text = said.splitlines()
    assert none == "No corpus 'a/b': the Hub has nothing by that name (404)."
    assert no_split.startswith("No corpus 'tiny/texts': Bad split: test.")
    assert "'tiny/other'" in no_text
    assert "text" in no_text


def test_a_hub_that_hangs_is_not_waited_for(server):
    server.trouble = "hang"
    said = from_the_hub(
        server,
        "corpus.hub.ANSWER_S = 0.5\n"
        "try:\n"
        "    read_corpus('wikipedia')\n"
        "except DataError as error:\n"
        "    print(error)\n",
    )
    assert "'wikimedia/wikipedia': the Hub did not answer within 0.5 s." in said
    assert "pydocs" in said


def test_offline_asks_nobody(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub, "ANSWER_S", 0.0)
    for name in ("wikipedia", "bookcorpus", "a/b"):
        with pytest.raises(DataError, match="HF_HUB_OFFLINE is set, so nobody was asked"):
            read_corpus(name)


@pytest.mark.parametrize("name", ["../up", "a/b/c", "/no/such", "a b"])
def test_what_is_neither_a_path_nor_a_name(name, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_MIRROR", str(tmp_path))
    with pytest.raises(DataError, match="neither a path that exists nor a name"):
        read_corpus(name)
