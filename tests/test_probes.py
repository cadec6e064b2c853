"""The probes are what their data card says: counts, balance, labels, and no two alike."""

from __future__ import annotations

import csv
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from course_utils.data.pydocs import LABELS

FOLDER = Path(__file__).parents[1] / "data" / "probes"
SPLITS = ("train", "dev", "test")
AT_LEAST = {"train": 128, "dev": 40, "test": 88}
# Names of the libraries, whole or as part of a longer name, and aliases as words of their own.
NAMES = re.compile(
    r"matplotlib|pyplot|pylab|numpy|pandas|scikit|sklearn|scipy|stdlib|standard library|python"
    r"|torch|transformer|hugging ?face|\b(?:mpl|plt|np|pd|sp|skl|nn|hf)\b",
    re.IGNORECASE,
)
WORD = re.compile(r"[\w'-]+")


def read(split: str) -> list[dict[str, str]]:
    with open(FOLDER / f"{split}.tsv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


ROWS = {split: read(split) for split in SPLITS}
EVERY = [row for split in SPLITS for row in ROWS[split]]


def card_table(first_header: str) -> dict[str, dict[str, int]]:
    """The card's table whose first column has this header: row name -> column name -> count."""
    lines = (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first_header} |"))
    cells = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        cells.append([cell.strip() for cell in line.strip("|").split("|")])
    header, _, *body = cells
    return {name: dict(zip(header[1:], map(int, counts), strict=True)) for name, *counts in body}


@pytest.mark.parametrize("split", SPLITS)
def test_files_are_plain_tables(split):
    data = (FOLDER / f"{split}.tsv").read_bytes()
    assert not data.startswith(b"\xef\xbb\xbf")
    assert b"\r" not in data
    assert b'"' not in data  # so that a reader with quoting sees the same table
    lines = data.decode("utf-8").splitlines()
    assert lines[0] == "text\tlabel\tsecond"
    assert {line.count("\t") for line in lines} == {2}
    assert len(lines) == len(ROWS[split]) + 1
    assert len(ROWS[split]) >= AT_LEAST[split]
    assert all(value == value.strip() for row in ROWS[split] for value in row.values())


def test_labels_file_fixes_the_order():
    assert (FOLDER / "labels.txt").read_text(encoding="utf-8") == "\n".join(LABELS) + "\n"


def test_labels_and_second_labels_are_valid():
    assert {row["label"] for row in EVERY} == set(LABELS)
    assert {row["second"] for row in EVERY} <= {*LABELS, ""}
    assert [row["text"] for row in EVERY if row["second"] == row["label"]] == []


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_is_balanced(split):
    share = len(ROWS[split]) // len(LABELS)
    assert Counter(row["label"] for row in ROWS[split]) == dict.fromkeys(LABELS, share)
    between = Counter(row["label"] for row in ROWS[split] if row["second"])
    assert set(between) == set(LABELS)
    assert len(set(between.values())) == 1


def test_many_sentences_lie_between_many_pairs():
    assert len(EVERY) >= 32 * len(LABELS)
    pairs = Counter((row["label"], row["second"]) for row in EVERY if row["second"])
    assert pairs.total() >= 96
    assert len(pairs) >= 40
    assert max(pairs.values()) <= 5
    assert {second for _, second in pairs} == set(LABELS)


def test_texts_are_short_sentences():
    lengths = {row["text"]: len(row["text"].split()) for row in EVERY}
    assert [text for text, length in lengths.items() if not 12 <= length <= 45] == []
    assert [text for text in lengths if not text.endswith((".", ")"))] == []


def test_no_text_names_a_library():
    assert [row["text"] for row in EVERY if NAMES.search(row["text"])] == []


def test_no_two_texts_are_alike():
    texts = [row["text"] for row in EVERY]
    assert len(set(texts)) == len(texts)
    words = [(text, frozenset(WORD.findall(text.lower()))) for text in texts]
    alike = [(a, b) for (a, x), (b, y) in combinations(words, 2) if len(x & y) > 0.6 * len(x | y)]
    assert alike == []


def test_openings_differ():
    openings = Counter(tuple(WORD.findall(row["text"].lower())[:4]) for row in EVERY)
    assert [opening for opening, times in openings.items() if times > 4] == []


def test_card_counts_the_files():
    expected = {
        split: {
            "sentences": len(rows),
            "per label": len(rows) // len(LABELS),
            "clear": sum(not row["second"] for row in rows),
            "between two": sum(bool(row["second"]) for row in rows),
        }
        for split, rows in {**ROWS, "all": EVERY}.items()
    }
    assert card_table("split") == expected


def test_card_counts_the_pairs():
    pairs = Counter((row["label"], row["second"]) for row in EVERY)
    expected = {a: {b: pairs[a, b] for b in LABELS} for a in LABELS}
    assert card_table("label") == expected
