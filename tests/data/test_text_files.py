"""Files of text as they come: encodings, separators, quotes, and what is refused with its line."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from course_utils.data.text_files import encoding_note, find_separator, read_table, read_text
from course_utils.errors import DataError

SENTENCES = {
    "cp1252": "Das Frühstück war köstlich, die Zimmer größer als gedacht. L’hôtel était agréable.",
    "cp1250": "Pokój był duży i czysty, a śniadanie świetne.",
    "cp1251": "Очень хороший отель, мы вернёмся ещё раз.",
    "koi8_r": "Очень хороший отель, мы вернёмся ещё раз.",
    "cp1253": "Το ξενοδοχείο ήταν πολύ καλό και καθαρό.",
    "cp1254": "Otel çok güzeldi, şehir ışıkları da öyle.",
    "cp1255": "המלון היה מצוין והשירות טוב",
    "gb18030": "酒店的房间很大，服务也不错。早餐太差，不会再来了。",
    "cp950": "房間很大，服務也不錯。早餐太差，不會再來了。",
    "cp932": "とても美味しかったです。部屋が汚くて残念でした。",
    "euc_jp": "とても美味しかったです。部屋が汚くて残念でした。",
    "cp949": "음식이 정말 맛있었어요. 서비스가 너무 나빴습니다.",
}


def write(folder: Path, content: str | bytes, name: str = "a.csv") -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def refused(call, *arguments, **options) -> DataError:
    with pytest.raises(DataError) as error:
        call(*arguments, **options)
    assert error.value.do
    return error.value


def rows_of(file: Path, *wanted: str, **options) -> list[list[str]]:
    table = read_table(file, wanted, say=str, **options)
    return [table.columns, *table.rows]


# --- encodings ---


@pytest.mark.parametrize("encoding", SENTENCES)
def test_an_old_encoding_is_found_by_its_text(tmp_path, encoding):
    text = f"text,label\n{SENTENCES[encoding]},a\nplain,b\n"
    assert read_text(write(tmp_path, text.encode(encoding))) == (text, encoding)


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("sentence", ["Plain.", SENTENCES["gb18030"]])
def test_a_byte_order_mark_says_it(tmp_path, codec, sentence):
    text = f"text,label\n{sentence},a\n"
    read, encoding = read_text(write(tmp_path, text.encode(codec)))
    assert (read, encoding) == (text, codec.removesuffix("-sig"))


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("sentence", ["Plain.", "Café", SENTENCES["gb18030"], "一上下"])
def test_utf_16_and_32_without_a_mark(tmp_path, codec, sentence):
    text = f"text,label\n{sentence},a\n"
    assert read_text(write(tmp_path, text.encode(codec))) == (text, codec)


def test_the_given_encoding_is_taken(tmp_path):
    content = "Œuvre, naïve".encode("cp1252")
    assert read_text(write(tmp_path, content), encoding="latin-1")[0] == content.decode("latin-1")


def test_what_is_not_utf8_is_said_once_and_only_if_it_was_found(tmp_path):
    said: list[str] = []
    file = write(
        tmp_path, f"text,label\n{SENTENCES['cp1252']},a".replace(", d", " d").encode("cp1252")
    )
    read_table(file, ("text", "label"), say=said.append)
    assert said == ["a.csv: read as cp1252 (detected): --encoding to choose another."]
    read_table(file, ("text", "label"), encoding="cp1252", say=said.append)
    assert len(said) == 1
    assert encoding_note(file, "utf-8") is None


@pytest.mark.parametrize("name", ["nope", "hex", "zip", "a\0b"])
def test_an_encoding_that_is_none(tmp_path, name):
    error = refused(read_text, write(tmp_path, "text"), encoding=name)
    assert f"no encoding {name!r}" in str(error)
    assert "cp1252" in error.do


@pytest.mark.parametrize("codec", ["utf-8", "ascii", "shift_jis"])
def test_an_encoding_that_does_not_fit_names_the_line(tmp_path, codec):
    file = write(tmp_path, b"text,label\r\nfine,a\r\nnot \xff\xff fine,b\r\n")
    error = refused(read_text, file, encoding=codec)
    assert "0xff" in error.what
    assert error.where == f"{file}, line 3"


def test_damaged_utf8_is_not_taken_for_another_encoding(tmp_path):
    """Read as cp1252, each é of the file would be two wrong letters."""
    content = "text\nCafé, déjà vu\nplain\n".encode() + b"one bad \xe9 byte\n"
    error = refused(read_text, write(tmp_path, content))
    assert "0xe9 is not UTF-8" in error.what
    assert str(error.where).endswith("line 4")


def test_bytes_that_are_no_text(tmp_path):
    refused(read_text, write(tmp_path, bytes(range(256)) * 9))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_zeros_are_refused_with_their_line(tmp_path, end):
    file = write(tmp_path, end.join(["text,label", "fine,a", "one \0\0 zero,b", "Café,c"]))
    error = refused(read_text, file)
    assert error.what.startswith("2 zeros")
    assert error.where == f"{file}, line 3"


# --- separators ---


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_the_separator_is_the_one_that_gives_the_columns(tmp_path, mark, name):
    lines = [["id", "text", "label"], ["1", "good and fine", "a"], ["2", "no", "b"]]
    file = write(tmp_path, "\n".join(map(mark.join, lines)), name)
    said: list[str] = []
    table = read_table(file, ("text", "label"), say=said.append)
    assert [table.columns, *table.rows] == lines
    assert table.separator == mark
    usual = mark == {"a.csv": ",", "a.tsv": "\t"}[name]
    assert said == (
        []
        if usual
        else [f"{name}: {mark!r} stands between the columns: --separator to choose another."]
    )


def test_the_usual_separator_wins_if_several_fit():
    assert find_separator("text\nan apple; a pear\n", ["text"]) == ","
    assert find_separator("text\nan apple; a pear\n", ["text"], usual="\t") == "\t"


def test_without_the_columns_the_most_columns_win():
    assert find_separator("a, one;b;c\n", ["text"]) == ";"
    assert find_separator('"a;b";"text"\n', ["text"]) == ";"


def test_the_given_separator_is_taken(tmp_path):
    file = write(tmp_path, "text^label\na,b;c^d\n")
    assert rows_of(file, "text", "label", separator="^") == [["text", "label"], ["a,b;c", "d"]]
    file = write(tmp_path, "text\tlabel\na,b\tc\n")
    assert rows_of(file, "text", separator="tab")[1] == ["a,b", "c"]


@pytest.mark.parametrize("separator", ["", "::", '"', "\n"])
def test_a_separator_that_cannot_be(tmp_path, separator):
    refused(read_table, write(tmp_path, "text\n"), ["text"], separator=separator, say=str)


# --- cells ---

ODD = [
    'a "quoted" word',
    "a, comma; and | more",
    "two\nlines",
    "two\r\nlines",
    "tab\there",
    '"',
    "",
]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    ("quoting", "end"),
    [(csv.QUOTE_MINIMAL, "\n"), (csv.QUOTE_MINIMAL, "\r\n"), (csv.QUOTE_ALL, "\r")],
)
def test_quotes_separators_and_line_breaks_within_cells(tmp_path, mark, quoting, end):
    file = tmp_path / "a.csv"
    rows = [["text", "label"], *([cell, "x"] for cell in ODD)]
    with open(file, "w", encoding="utf-8", newline="") as out:
        csv.writer(out, delimiter=mark, quoting=quoting, lineterminator=end).writerows(rows)
    assert rows_of(file, "text", "label") == rows


def test_without_consistent_quotes_a_tab_separated_table_has_none(tmp_path):
    rows = [["text", "label"], ['"Half a quote', "a"], ['ends here"', "b"], ['"Whole."', "c"]]
    assert rows_of(write(tmp_path, "\n".join(map("\t".join, rows)), "a.tsv"), "text") == rows


def test_a_column_of_quoted_cells_is_quoted(tmp_path):
    """As R writes its tables of texts."""
    file = write(tmp_path, 'text\tlabel\n"One."\t1\n"Two."\t2\n', "a.tsv")
    assert rows_of(file, "text") == [["text", "label"], ["One.", "1"], ["Two.", "2"]]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_cell_of_ten_megabytes(tmp_path, name):
    limit = csv.field_size_limit()
    cell = "word " * 2_000_000
    mark = "\t" if name == "a.tsv" else ","
    rows = rows_of(write(tmp_path, f"text{mark}label\n{cell}{mark}a\n", name), "text")
    assert len(rows[1][0]) == 10_000_000
    assert csv.field_size_limit() == limit


def test_rows_of_another_length_are_refused_when_they_are_reached(tmp_path):
    table = read_table(write(tmp_path, 'text,label\n"a\nb",c\n\nd\n'), ["text"], say=str)
    assert next(table.rows) == ["a\nb", "c"]
    error = refused(next, table.rows)
    assert "1 fields under a header of 2" in error.what
    assert str(error.where).endswith("line 5")


def test_an_empty_file_has_no_columns(tmp_path):
    assert rows_of(write(tmp_path, b""), "text") == [[]]


def test_nothing_heavy_is_imported():
    code = (
        "import sys, course_utils.data.text_files;"
        "print(*{'torch', 'datasets', 'pandas', 'pyarrow', 'transformers'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
