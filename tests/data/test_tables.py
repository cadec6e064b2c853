"""Texts and labels out of one table: what is kept, what is left out, what is said."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from datasets import Dataset

from course_utils.data.tables import read_labelled
from course_utils.errors import DataError


def read(table: Path | Dataset, **options):
    said: list[str] = []
    labelled = read_labelled(
        table, "here", **{"text": "text", "label": "label", "say": said.append} | options
    )
    return labelled, said


def columns(labels: list, texts: list | None = None) -> Dataset:
    return Dataset.from_dict(
        {"text": texts or [f"text {k}" for k in range(len(labels))], "label": labels}
    )


def test_a_label_is_a_tuple_of_one():
    labelled, said = read(columns(["a", "b "]))
    assert labelled == ([("text 0", ("a",)), ("text 1", ("b",))], False)
    assert said == []


def test_what_is_left_out_is_said_by_its_row():
    labelled, said = read(columns(["a"] * 28 + [None, ""], [" ", *(f"t{k}" for k in range(29))]))
    assert [text for text, _ in labelled.rows] == [f"t{k}" for k in range(27)]
    assert said == [
        "! here: 3 of 30 rows have no text or no label and are left out (data row 1, 29, 30)."
    ]


@pytest.mark.parametrize(("n_bad", "fine"), [(2, True), (3, False)])
def test_more_than_a_fifth_is_too_much(n_bad, fine):
    table = columns(["a"] * (10 - n_bad) + [""] * n_bad)
    if fine:
        assert len(read(table)[0].rows) == 8
    else:
        with pytest.raises(DataError, match="3 of 10 rows"):
            read(table)


@pytest.mark.parametrize(
    ("cell", "names"),
    [("b; a ;b", ("a", "b")), ("", ()), (" ; ", ()), (None, ()), ("a", ("a",)), ("a,b", ("a,b",))],
)
def test_a_cell_is_split(cell, names):
    labelled, said = read(columns([cell, "z"]), label_separator=";")
    assert labelled == ([("text 0", names), ("text 1", ("z",))], True)
    assert said == []


@pytest.mark.parametrize(
    ("values", "names"),
    [([" b", "a", "b"], ("a", "b")), ([], ()), (None, ()), (["a;b", None, ""], ("a;b",))],
)
def test_a_list_is_not_split(values, names):
    labelled, _ = read(columns([values, ["z"]]), label_separator=";")
    assert labelled.rows[0] == ("text 0", names)


def test_a_list_of_what_is_no_label_is_left_out():
    rows = [[1, 2.0]] * 9 + [[]]
    assert read(columns(rows))[0].rows[0] == ("text 0", ("1", "2"))
    with pytest.raises(DataError, match="5 of 5 rows"):
        read(columns([[{"start": 1}]] * 5))


def test_the_columns_there_are_listed(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("id;review;stars\n1;fine;5\n")
    with pytest.raises(DataError, match="no column 'text' and no column 'label'") as error:
        read(file)
    assert "It has: id, review, stars" in error.value.do


def test_the_encoding_and_the_separator_reach_the_file(tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes("text^label\nCafé, très bon^a\n".encode("cp850"))
    labelled, said = read(file, encoding="cp850", separator="^")
    assert labelled.rows == [("Café, très bon", ("a",))]
    assert said == []


def test_a_table_as_a_spreadsheet_writes_it(tmp_path):
    cells = ["one\ntwo", 'a "b"', "c, d", "e\tf"]
    with open(tmp_path / "a.csv", "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((cell, "x") for cell in cells)])
    texts = [text for text, _ in read(tmp_path / "a.csv")[0].rows]
    assert texts == ["one two", 'a "b"', "c, d", "e f"]
