"""Texts and labels out of one table, whatever its format; what is wrong in it is named by row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow
import pyarrow.parquet
from datasets import ClassLabel, Dataset

from course_utils.data.text_files import encoding_note, read_table, read_text
from course_utils.errors import DataError

MOST_LEFT_OUT = 0.2  # share of rows without text or label; beyond it the table is not what we think
Row = tuple[str, tuple[str, ...]]  # a text and the names of its classes


class Labelled(NamedTuple):
    """The rows of one table; in one that is not multi-label each has exactly one class."""

    rows: list[Row]
    multi_label: bool


def read_labelled(
    table: Path | Dataset,
    where: str | Path,
    *,
    text: str,
    label: str,
    label_separator: str | None = None,
    encoding: str | None = None,
    separator: str | None = None,
    say: Callable[[str], object] = print,
) -> Labelled:
    """Text and classes of every row, as strings on one line, in the table's order.

    `table` is a .tsv, .csv, .jsonl, .json or .parquet file, or a loaded data set; `where` names it
    in messages. A class number becomes its name where the table knows it. It is multi-label if
    `label_separator` is given, which splits the cells, or if a label is a list: then a row may have
    no class at all. Classes are sorted, each once.

    Rows without a text, or without a label where there must be one, are left out and said. Raises
    `DataError` if these are more than a fifth, and for anything else that cannot be used.
    """
    names = {"text": text, "label": label}
    if isinstance(table, Path) and table.suffix.lower() == ".parquet":
        table = _read_parquet(table)
    if isinstance(table, Dataset):
        values = _from_dataset(table, where, **names)
    elif table.suffix.lower() in {".tsv", ".csv"}:
        values = _from_separated(table, encoding, separator, say, **names)
    else:
        values = _from_json(table, encoding, say, **names)
    multi_label = label_separator is not None or any(isinstance(v, list) for _, v in values)
    rows = [
        (_text(t), _names(v, label_separator) if multi_label else _one_name(v)) for t, v in values
    ]
    return Labelled(_whole_rows(rows, where, say), multi_label)


def _whole_rows(
    rows: list[tuple[str, tuple[str, ...] | None]], where: str | Path, say: Callable[[str], object]
) -> list[Row]:
    """The rows with a text and a label; the others are said, or refused if they are many."""
    bad = [n for n, (text, names) in enumerate(rows, start=1) if not text or names is None]
    if not bad:
        return rows
    shown = ", ".join(map(str, bad[:5])) + (" …" if len(bad) > 5 else "")
    what = f"{len(bad):,} of {len(rows):,} rows have no text or no label"
    if len(bad) > MOST_LEFT_OUT * len(rows):
        raise DataError(
            f"{what}.",
            where=f"{where}, data row {shown}",
            do="Fill or delete these rows. A text is a string, a label a string or a number.",
        )
    name = where.name if isinstance(where, Path) else where
    say(f"! {name}: {what} and are left out (data row {shown}).")
    return [(text, names) for text, names in rows if text and names is not None]


def _check_columns(columns: list[str], where: str | Path, text: str, label: str) -> None:
    if not columns:
        raise DataError("This table is empty.", where=where, do="Give a table with rows.")
    missing = [name for name in (text, label) if name not in columns]
    if missing:
        raise DataError(
            f"There is no column {' and no column '.join(map(repr, missing))}.",
            where=where,
            do=f"It has: {', '.join(columns)}. Name the two columns with --text and --label.",
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


def _one_name(value: object) -> tuple[str] | None:
    """The label as a tuple of one; None if there is none."""
    name = _label(value)
    return (name,) if name else None


def _names(value: object, separator: str | None) -> tuple[str, ...] | None:
    """The labels of a cell or list, sorted, each once; None if something in it is no label."""
    if isinstance(value, str) and separator:
        value = value.split(separator)
    items = value if isinstance(value, list) else [value]
    given = [item for item in items if not _is_nothing(item)]
    names = {_label(item) for item in given}
    return None if "" in names else tuple(sorted(names))


def _is_nothing(item: object) -> bool:
    """Whether an item is missing or blank: no label, but no mistake either."""
    return item is None or item != item or (isinstance(item, str) and not item.strip())


def _from_dataset(
    dataset: Dataset, where: str | Path, *, text: str, label: str
) -> list[tuple[object, object]]:
    """The two columns as Python values; class numbers, in lists, too, as names."""
    _check_columns(dataset.column_names, where, text, label)
    columns = dataset.select_columns(list({text, label})).to_dict()
    feature = dataset.features[label]
    labels = columns[label]
    if isinstance(inner := getattr(feature, "feature", feature), ClassLabel):
        names = dict(enumerate(inner.names))
        labels = [
            [names.get(k, k) for k in value] if isinstance(value, list) else names.get(value, value)
            for value in labels
        ]
    return list(zip(columns[text], labels, strict=True))


def _from_separated(
    file: Path,
    encoding: str | None,
    separator: str | None,
    say: Callable[[str], object],
    *,
    text: str,
    label: str,
) -> list[tuple[object, object]]:
    columns, rows, *_ = read_table(
        file, (text, label), encoding=encoding, separator=separator, say=say
    )
    _check_columns(columns, file, text, label)
    i, k = columns.index(text), columns.index(label)
    return [(fields[i], fields[k]) for fields in rows]


def _from_json(
    file: Path, encoding: str | None, say: Callable[[str], object], *, text: str, label: str
) -> list[tuple[object, object]]:
    content, used = read_text(file, encoding=encoding)
    if encoding is None and (note := encoding_note(file, used)):
        say(note)
    rows = _objects(file, content)
    _check_columns(list(dict.fromkeys(key for row in rows for key in row)), file, text, label)
    return [(row.get(text), row.get(label)) for row in rows]


def _read_parquet(file: Path) -> Dataset:
    try:
        return Dataset(pyarrow.parquet.read_table(file))
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(
            f"This is not a whole parquet file: {error}.", where=file, do="Write or copy it again."
        ) from None


def _objects(file: Path, content: str) -> list[dict]:
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
