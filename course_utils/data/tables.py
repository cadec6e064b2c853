"""Texts and labels out of one table, whatever its format; what is wrong in it is named by row."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
from datasets import ClassLabel, Dataset

from course_utils.errors import DataError

Pairs = list[tuple[str, str]]


def text_label_pairs(table: Path | Dataset, where: str | Path, *, text: str, label: str) -> Pairs:
    """(text, label) of every row, both as strings on one line, in the table's order.

    `table` is a .tsv (no quoting), .csv, .jsonl, .json or .parquet file, or a loaded data set;
    `where` names it in messages. A class number becomes its name where the table knows it.
    Raises `DataError` for anything that cannot be used, and leaves no row out in silence.
    """
    if isinstance(table, Path) and table.suffix.lower() == ".parquet":
        table = _read_parquet(table)
    if isinstance(table, Dataset):
        _check_columns(table.column_names, where, text, label)
        rows = _plain_rows(table, text, label)
    else:
        columns, rows = _read_text(table)
        _check_columns(columns, where, text, label)
    pairs = [(_text(row.get(text)), _label(row.get(label))) for row in rows]
    bad = [number for number, pair in enumerate(pairs, start=1) if not all(pair)]
    if bad:
        shown = ", ".join(map(str, bad[:5])) + (" …" if len(bad) > 5 else "")
        raise DataError(
            f"{len(bad)} of {len(pairs)} rows have no text or no label.",
            where=f"{where}, data row {shown}",
            do="Fill or delete these rows. A text is a string, a label a string or a number.",
        )
    return pairs


def decode(file: Path) -> str:
    """The text of a UTF-8 file; raises `DataError` with the line of the first byte that is not."""
    content = file.read_bytes()
    try:
        text = content.decode("utf-8-sig")
        at = content.find(0)  # no text has it; UTF-16 is full of it
    except UnicodeDecodeError as error:
        at = error.start
    if at < 0:
        return text
    line = content.count(b"\n", 0, at) + 1
    raise DataError(
        f"The byte 0x{content[at]:02x} is not UTF-8 text.",
        where=f"{file}, line {line}",
        do="Save the file as UTF-8; in a spreadsheet, choose CSV UTF-8 when exporting.",
    )


def _check_columns(columns: list[str], where: str | Path, text: str, label: str) -> None:
    if not columns:
        raise DataError("This table is empty.", where=where, do="Give a table with rows.")
    missing = [name for name in (text, label) if name not in columns]
    if missing:
        do = f"It has: {', '.join(columns)}. Name the two columns with --text and --label."
        if len(columns) == 1 and (mark := next((m for m in ";\t,|" if m in columns[0]), None)):
            do = f"Between its columns stands {mark!r}: save it as .csv with ',' or .tsv with tabs."
        raise DataError(
            f"There is no column {' and no column '.join(map(repr, missing))}.", where=where, do=do
        )
    for name in (text, label):
        if columns.count(name) > 1:
            raise DataError(
                f"Several columns are called {name!r}.", where=where, do="Rename all but one."
            )


def _text(value: object) -> str:
    """The value on one line; empty if it is no text."""
    if not isinstance(value, str):
        return ""
    try:
        value.encode()
    except UnicodeEncodeError:  # half a character, as a text that was cut inside an emoji has
        return ""
    return " ".join(value.split())


def _label(value: object) -> str:
    """The value as a string; empty if it is no label. One missing value makes 1 a 1.0 in pandas."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    known = isinstance(value, (str, int, float)) and value == value  # NaN is not itself
    return _text(str(value)) if known else ""


def _plain_rows(dataset: Dataset, text: str, label: str) -> list[dict]:
    """The two columns as Python values; class numbers as names."""
    rows = dataset.select_columns(list({text, label})).to_list()
    feature = dataset.features[label]
    if isinstance(feature, ClassLabel):
        names = dict(enumerate(feature.names))
        rows = [row | {label: names.get(row[label], row[label])} for row in rows]
    return rows


def _read_parquet(file: Path) -> Dataset:
    try:
        return Dataset(pyarrow.parquet.read_table(file))
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(
            f"This is not a whole parquet file: {error}.", where=file, do="Write or copy it again."
        ) from None


def _read_text(file: Path) -> tuple[list[str], list[dict]]:
    """Column names and rows of a .tsv, .csv, .jsonl or .json file."""
    content = decode(file)
    if file.suffix.lower() in {".tsv", ".csv"}:
        return _read_separated(file, content)
    rows = _read_json(file, content)
    return list(dict.fromkeys(key for row in rows for key in row)), rows


def _read_separated(file: Path, content: str) -> tuple[list[str], list[dict]]:
    if file.suffix.lower() == ".tsv":
        style = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
        do = "Write no tab inside a text."
    else:
        style = {"strict": True}
        do = 'Put a text with a comma or a line break in double quotes; write a " inside as "".'
    lines = csv.reader(io.StringIO(content, newline=""), **style)
    header: list[str] = []
    rows = []
    line = 1
    try:
        for fields in lines:
            if not header:
                header = [name.strip() for name in fields]
            elif len(fields) == len(header):
                rows.append(dict(zip(header, fields, strict=True)))
            elif fields:
                raise csv.Error(f"{len(fields)} fields under a header of {len(header)}")
            line = lines.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"A row cannot be read: {error}.", where=f"{file}, line {line}", do=do
        ) from None
    return header, rows


def _read_json(file: Path, content: str) -> list[dict]:
    """The objects of one array, or one object per line."""
    lines = [content] if content.lstrip().startswith("[") else content.split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                at = number + getattr(error, "lineno", 1) - 1
                raise DataError(
                    f"This is not JSON: {getattr(error, 'msg', error)}.",
                    where=f"{file}, line {at}",
                    do="Write one JSON object per line, or one array of objects.",
                ) from None
            rows += value if isinstance(value, list) else [value]
    odd = next((i for i, row in enumerate(rows, start=1) if not isinstance(row, dict)), None)
    if odd is not None:
        raise DataError(
            "A row is not a JSON object.",
            where=f"{file}, row {odd}",
            do='Write rows like {"text": "…", "label": "…"}.',
        )
    return rows
