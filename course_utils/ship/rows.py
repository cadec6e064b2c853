"""Tables that are read and written row by row, so that their size does not matter.

Only the standard library is needed. A table keeps its order, its columns, its separator and its
way of quoting. What is written is UTF-8, with a byte order mark if the input had one.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from course_utils.data import text_files
from course_utils.data.charsets import MARKS
from course_utils.data.safe_csv import safe_cell
from course_utils.errors import DataError
from course_utils.files import writing

BLOCK = 1 << 20  # bytes that are looked at together
SAMPLE = 1 << 18  # characters in which the header and the quoting are looked for
DEFAULT = "text"  # the column of texts if nobody names one


class Answer(NamedTuple):
    """The classes of one text, the likeliest first, and the probability of each."""

    labels: tuple[str, ...]
    probs: tuple[float, ...]
    several: bool  # any number of classes may be right


class Separated:
    """A .csv or .tsv file. Raises `DataError` for a row that is longer or shorter than the header.

    Iterating yields each row as its list of fields, every time from the start; blank lines are
    left out. `n_rows` was counted when the table was opened, so a bad row is known before any work.
    """

    def __init__(self, file: Path, column: str, say: Callable[[str], object]):
        self.file, self.encoding = file, encoding_of(file, say)
        with self._open() as stream:
            sample = stream.read(SAMPLE)
        whole_lines = sample[: sample.rfind("\n") + 1] if len(sample) == SAMPLE else sample
        usual = "\t" if file.suffix.lower() == ".tsv" else ","
        self.separator = text_files.find_separator(sample, [column], usual=usual)
        if self.separator != usual:
            say(f"{file.name}: {self.separator!r} stands between the columns.")
        self.quoted = self.separator != "\t" or text_files.has_quoting(whole_lines)
        self.columns = [name.strip() for name in next(self._rows(), [])]
        self.column = self.columns.index(column_of_texts(self.columns, column, file))
        self.new = new_names(self.columns)
        self.n_rows = sum(1 for _ in self)

    def __iter__(self) -> Iterator[list[str]]:
        rows = self._rows()
        next(rows)  # the header
        return rows

    def text(self, row: list[str]) -> str:
        """The text of a row, as it stands there."""
        return row[self.column]

    def head(self) -> str:
        """The header with the two new columns."""
        return self._line([*self.columns, *self.new])

    def line(self, row: list[str], answer: Answer) -> str:
        """The row with the answer; several classes stand with `;` between them."""
        probs = (f"{prob:.4f}" for prob in answer.probs)
        return self._line([*row, ";".join(answer.labels), ";".join(probs)])

    def _line(self, fields: Sequence[str]) -> str:
        fields = [safe_cell(field) for field in fields]
        if not self.quoted:
            return "\t".join(fields) + "\n"
        line = io.StringIO(newline="")
        csv.writer(line, delimiter=self.separator, lineterminator="\n").writerow(fields)
        return line.getvalue()

    def _open(self) -> TextIO:
        return open(self.file, encoding=self.encoding, newline="")

    def _rows(self) -> Iterator[list[str]]:
        with self._open() as stream:
            yield from text_files.even_rows(stream, self.separator, self.file, quoted=self.quoted)


class JsonLines:
    """A .jsonl file: one object per line. Iterating yields each as a dict; see `Separated`."""

    def __init__(self, file: Path, column: str, say: Callable[[str], object]):
        self.file, self.encoding = file, encoding_of(file, say)
        names: dict[str, None] = {}
        self.n_rows = 0
        for row in self:
            names |= dict.fromkeys(row)
            self.n_rows += 1
        self.columns = list(names)
        self.column = column_of_texts(self.columns, column, file)
        self.new = new_names(self.columns)

    def __iter__(self) -> Iterator[dict]:
        with open(self.file, encoding=self.encoding) as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield self._row(line, number)

    def _row(self, line: str, number: int) -> dict:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise DataError(
                "This is not a JSON object.",
                where=f"{self.file}, line {number}",
                do='Write one object per line, like {"text": "…"}.',
            )
        return row

    def text(self, row: dict) -> str:
        """The text, empty where there is none; half a character, as of a cut emoji, is a `?`."""
        value = row.get(self.column)
        return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""

    def head(self) -> str:
        """Nothing: every line names its columns."""
        return ""

    def line(self, row: dict, answer: Answer) -> str:
        """The row with the answer: lists if several classes may be right, else a value or null."""
        labels, probs = list(answer.labels), [round(prob, 4) for prob in answer.probs]
        if not answer.several:
            labels, probs = (labels or [None])[0], (probs or [None])[0]
        row = row | dict(zip(self.new, (labels, probs), strict=True))
        line = json.dumps(row, ensure_ascii=False)
        # Half a character, as a cut emoji leaves it, is no UTF-8: then JSON's own escapes.
        return (line if _is_whole(line) else json.dumps(row)) + "\n"


READERS = {".csv": Separated, ".tsv": Separated, ".jsonl": JsonLines}


def open_table(
    file: Path, column: str = DEFAULT, *, say: Callable[[str], object] = print
) -> Separated | JsonLines:
    """The table in a .csv, .tsv or .jsonl file, read once from end to end, so that it is sound.

    `column` holds the texts; the only column does if it has another name than the default. What is
    unusual about the file is said. Raises `DataError` with the line of what is wrong.
    """
    if not file.is_file():
        what = "This is a folder." if file.is_dir() else "There is no such file."
        raise DataError(what, where=file, do="Check the path.")
    if file.suffix.lower() not in READERS:
        raise DataError(
            f"A file that ends in {file.suffix!r} is not read here.",
            where=file,
            do=f"Give a table that ends in {', '.join(READERS)}.",
        )
    try:
        return READERS[file.suffix.lower()](file, column, say)
    except OSError as error:
        raise DataError(
            f"This file cannot be read: {os.strerror(error.errno)}.", where=file, do="Check it."
        ) from error


def encoding_of(file: Path, say: Callable[[str], object]) -> str:
    """The encoding to open a file with. UTF-8 is checked block by block.

    Any other is found in the whole file at once, and said. Raises `DataError` as `read_text` does.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open(file, "rb") as stream:
        marked = stream.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
        stream.seek(0)
        try:
            while block := stream.read(BLOCK):
                if "\0" in decoder.decode(block):
                    break
            else:
                decoder.decode(b"", final=True)
                return "utf-8-sig" if marked else "utf-8"
        except UnicodeDecodeError:
            pass
    _, encoding = text_files.read_text(file)
    say(f"{file.name}: read as {encoding} (detected). What is written is UTF-8.")
    return encoding


def has_mark(file: Path) -> bool:
    """Whether a file begins with a byte order mark; spreadsheets write it and look for it."""
    with open(file, "rb") as stream:
        return stream.read(4).startswith(tuple(mark for mark, _ in MARKS))


def column_of_texts(columns: Sequence[str], wanted: str, file: Path) -> str:
    """`wanted` if there is such a column, the only column for the default; else `DataError`."""
    if not columns:
        raise DataError("This table is empty.", where=file, do="Give a table with a header.")
    if columns.count(wanted) == 1:
        return wanted
    if wanted in columns:
        do = "Rename all but one."
        raise DataError(f"Several columns are called {wanted!r}.", where=file, do=do)
    if wanted == DEFAULT and len(columns) == 1:
        return columns[0]
    raise DataError(
        f"There is no column {wanted!r}.",
        where=file,
        do=f"It has: {', '.join(columns)}. Name the one with the texts: --text NAME.",
    )


def new_names(columns: Sequence[str]) -> tuple[str, str]:
    """prediction and probability; with _2, _3 and so on, if the table has such columns already."""
    for suffix in ("", *(f"_{k}" for k in range(2, len(columns) + 3))):
        names = (f"prediction{suffix}", f"probability{suffix}")
        if not set(names) & set(columns):
            break
    return names


@contextlib.contextmanager
def new_file(path: Path, *, encoding: str) -> Iterator[TextIO]:
    """A text file beside `path` that takes its name when the block ends without an error.

    After an error it is removed, and what was at `path` is still there. Raises `OutputError` when
    the place is not writable or the disk is full.
    """
    with writing(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with open(handle, "w", encoding=encoding, newline="") as stream:
                yield stream
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
