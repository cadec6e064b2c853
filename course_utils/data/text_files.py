"""Files of text as they come: their encoding and the separator of their columns are found and said.

Only the standard library is needed, so that a shipped model reads tables without torch or pandas.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from course_utils.data.charsets import detect, known
from course_utils.errors import DataError

SEPARATORS = ",;\t|"
LONGEST_HEADER = 2**16  # characters
_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";"}
_QUOTED = re.compile(r'"[^"]*(?:""[^"]*)*"')


class Table(NamedTuple):
    """A separated text file: `rows` is read as it is asked for, each as long as `columns`."""

    columns: list[str]
    rows: Iterator[list[str]]
    encoding: str
    separator: str


def read_table(
    file: Path,
    wanted: Sequence[str],
    *,
    encoding: str | None = None,
    separator: str | None = None,
    say: Callable[[str], object] = print,
) -> Table:
    """The columns and rows of a .csv or .tsv file; what is unusual about it is said.

    `wanted` are the columns that will be used: they tell which separator is right. `encoding` and
    `separator` (a character or its name, such as tab) are found unless given. Blank lines are left
    out; a header's names lose the blanks around them. Raises `DataError` as `read_text` does, and
    when a row has more or fewer fields than the header, with its line.
    """
    text, used = read_text(file, encoding=encoding)
    if encoding is None and (note := encoding_note(file, used)):
        say(note)
    usual = "\t" if file.suffix.lower() == ".tsv" else ","
    if separator is not None:
        mark = _mark(separator)
    elif (mark := find_separator(text, wanted, usual=usual)) != usual:
        say(f"{file.name}: {mark!r} stands between the columns: --separator to choose another.")
    quoted = mark != "\t" or has_quoting(text)
    rows = even_rows(_lines(text), mark, file, quoted=quoted)
    return Table([name.strip() for name in next(rows, [])], rows, used, mark)


def read_text(file: Path, *, encoding: str | None = None) -> tuple[str, str]:
    """The text of a file, without a byte order mark, and the encoding it was read in.

    The encoding is the given one, or that of the byte order mark, UTF-16 or UTF-32 if the zeros
    among the bytes say so, UTF-8, or the likeliest other (`charsets.guess`). Zeros in any other
    text are refused, not removed: they stand where something was lost, and nobody but the owner of
    the file can say what. So is a UTF-8 file with a few damaged bytes: read in another encoding,
    all of its other letters would be wrong. Raises `DataError` with the line, also for an encoding
    that does not exist or does not fit.
    """
    content = file.read_bytes()
    codec = known(encoding) if encoding else detect(content) or "utf-8"
    try:
        text = content.decode(codec).removeprefix("\ufeff")
    except UnicodeError as error:
        start = getattr(error, "start", 0)
        raise DataError(
            f"The byte 0x{content[start]:02x} is not {codec.upper()} text.",
            where=f"{file}, line {_line(content[:start].decode(codec, 'replace'))}",
            do="Choose another --encoding."
            if encoding
            else "Save the file as UTF-8, in a spreadsheet as CSV UTF-8; or name its --encoding.",
        ) from None
    if (at := text.find("\0")) >= 0:
        raise DataError(
            f"{text.count(chr(0)):,} zeros (bytes 0x00) stand in this text, as in no text.",
            where=f"{file}, line {_line(text[:at])}",
            do="Look at that line: the file may be damaged. Remove them, or export it again.",
        )
    return text, codec


def encoding_note(file: Path, encoding: str) -> str | None:
    """The line that says a detected encoding; none for UTF-8."""
    if encoding == "utf-8":
        return None
    return f"{file.name}: read as {encoding} (detected): --encoding to choose another."


def find_separator(content: str, wanted: Sequence[str], *, usual: str = ",") -> str:
    """The separator, one of , ; tab |, under which the header has the wanted columns.

    If several do, it is `usual` or else the first; if none does, the one with the most columns.
    """
    marks = [usual, *(mark for mark in SEPARATORS if mark != usual)]
    headers = {mark: _header(content[:LONGEST_HEADER], mark) for mark in marks}
    fitting = [mark for mark in marks if set(wanted) <= set(headers[mark])]
    return fitting[0] if fitting else max(marks, key=lambda mark: len(headers[mark]))


def _line(before: str) -> int:
    """The number of the line that follows this text, counted from 1."""
    return len(re.findall(r"\r\n?|\n", before)) + 1


# --- separated columns ---


def _mark(separator: str) -> str:
    mark = _NAMES.get(separator, separator)
    if len(mark) != 1 or mark in '"\r\n\0 ':
        raise DataError(
            f"{separator!r} cannot stand between columns.",
            do="Give one character, such as ';' or '|', or the word tab.",
        )
    return mark


def _header(content: str, mark: str) -> list[str]:
    try:
        fields = next(filter(None, _Parsed(_lines(content), mark, quoted=True)), [])
    except csv.Error:
        fields = next(filter(None, _Parsed(_lines(content), mark, quoted=False)), [])
    return [name.strip() for name in fields]


def even_rows(lines: Iterable[str], mark: str, file: Path, *, quoted: bool) -> Iterator[list[str]]:
    """The header and every row, without blank lines, read as they are asked for.

    `lines` keep their line ends, and `file` is where they are from. Raises `DataError` with the
    line for a row that cannot be parsed or is longer or shorter than the header.
    """
    if quoted:
        do = f'Put a text with {mark!r} or a line break in double quotes; write a " inside as "".'
    else:
        do = "Write no tab inside a text."
    n_fields, line = 0, 1
    parsed = _Parsed(lines, mark, quoted=quoted)
    try:
        for fields in parsed:
            n_fields = n_fields or len(fields)
            if fields:
                if len(fields) != n_fields:
                    raise csv.Error(f"{len(fields)} fields under a header of {n_fields}")
                yield fields
            line = parsed.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"A row cannot be read: {error}.", where=f"{file}, line {line}", do=do
        ) from None


def _lines(content: str) -> Iterable[str]:
    """The lines with their ends as they are, for the csv module."""
    return io.StringIO(content, newline="")


class _Parsed:
    """An iterator over the fields of each row, of any length; `line_num` as in `csv.reader`.

    The csv module's limit on the length of a field is one for the whole process: it is lifted
    while a row is read, and put back.
    """

    def __init__(self, lines: Iterable[str], mark: str, *, quoted: bool):
        style = {"strict": True} if quoted else {"quoting": csv.QUOTE_NONE}
        self.reader = csv.reader(lines, delimiter=mark, **style)

    def __iter__(self) -> _Parsed:
        return self

    def __next__(self) -> list[str]:
        before = csv.field_size_limit(2**31 - 1)
        try:
            return next(self.reader)
        finally:
            csv.field_size_limit(before)

    @property
    def line_num(self) -> int:
        return self.reader.line_num


def has_quoting(content: str) -> bool:
    """Whether the quotes of a table with tabs stand around cells and are not part of the texts.

    They do if rows are whole with quoting alone; or if every cell that begins with a quote is a
    quoted one, and either the header or a whole column is quoted, or each has a doubled quote
    inside.
    """
    if '"' not in content:
        return False
    plain = list(filter(None, _Parsed(_lines(content), "\t", quoted=False)))
    if any(len(fields) != len(plain[0]) for fields in plain):
        return _is_whole(content)
    cells = [cell for fields in plain for cell in fields if cell.startswith('"')]
    if not cells or not all(map(_QUOTED.fullmatch, cells)):
        return False
    header, *rows = plain
    whole = any(all(cell[:1] == '"' for cell in column) for column in zip(*rows, strict=True))
    return whole or all(c[:1] == '"' for c in header) or all('""' in c[1:-1] for c in cells)


def _is_whole(content: str) -> bool:
    """Whether, with quoting, all rows are as long as the header."""
    try:
        rows = list(filter(None, _Parsed(_lines(content), "\t", quoted=True)))
    except csv.Error:
        return False
    return all(len(fields) == len(rows[0]) for fields in rows)
