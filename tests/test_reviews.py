"""The reviews hold what their card promises: counts, balance, no copies, no give-away words."""

from __future__ import annotations

import csv
import difflib
import itertools
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

FOLDER = Path(__file__).resolve().parents[1] / "data" / "reviews"
SIZES = {"train": 560, "dev": 80, "test": 160}
LABELS = ["negative", "positive"]
TAGS = {
    "plain",
    "negation",
    "contrast",
    "irony",
    "mixed",
    "comparison",
    "understatement",
    "factual",
}
PIVOTS = {
    "negation",
    "quantifier",
    "connective",
    "degree",
    "verb",
    "noun",
    "number",
    "time",
    "preposition",
    "other",
}

Row = dict[str, str]


def read(name: str) -> list[Row]:
    with open(FOLDER / f"{name}.tsv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Row]]:
    return {name: read(name) for name in SIZES}


@pytest.fixture(scope="module")
def plain_rows(splits: dict[str, list[Row]]) -> list[Row]:
    return [row for rows in splits.values() for row in rows]


@pytest.fixture(scope="module")
def hard() -> list[Row]:
    return read("hard")


@pytest.fixture(scope="module")
def pairs(hard: list[Row]) -> dict[str, list[Row]]:
    found = defaultdict(list)
    for row in hard:
        found[row["pair"]].append(row)
    return found


def pivot(pair: list[Row]) -> tuple[str, str]:
    """The one word in which two texts differ ('' when one of them has a word more)."""
    # On spaces, punctuation apart and capitals as written, so that nothing else may differ.
    tokens = [re.findall(r"[\w'’-]+|[^\w\s]", row["text"]) for row in pair]
    first, second = ([token[0].lower() + token[1:] for token in side] for side in tokens)
    edits = [
        (first[a:b], second[c:d])
        for kind, a, b, c, d in difflib.SequenceMatcher(None, first, second, False).get_opcodes()
        if kind != "equal"
    ]
    assert len(edits) == 1, (pair, edits)
    ((gone, came),) = edits
    assert max(len(gone), len(came)) == 1, (pair, edits)
    return "".join(gone), "".join(came)


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("train", "text label tag topic"),
        ("dev", "text label tag topic"),
        ("test", "text label tag topic"),
        ("hard", "text label pair tag"),
    ],
)
def test_the_files_are_plain_tables(name: str, columns: str) -> None:
    data = (FOLDER / f"{name}.tsv").read_bytes()
    assert b"\r" not in data
    assert data.endswith(b"\n")
    header, *lines = data.decode("utf-8").removesuffix("\n").split("\n")
    assert header == columns.replace(" ", "\t")
    for line in lines:
        cells = line.split("\t")
        assert len(cells) == len(columns.split()), line
        assert all(cell and cell == " ".join(cell.split()) for cell in cells), line
        assert chr(34) not in line, "a reader that minds quotes would swallow lines"


def test_labels_are_named_in_order() -> None:
    assert (FOLDER / "labels.txt").read_text(encoding="utf-8").splitlines() == LABELS


@pytest.mark.parametrize("name", SIZES)
def test_every_split_has_its_size_and_is_balanced(splits: dict[str, list[Row]], name: str) -> None:
    rows = splits[name]
    assert len(rows) == SIZES[name]
    half = SIZES[name] // 2
    assert Counter(row["label"] for row in rows) == dict.fromkeys(LABELS, half)


def test_every_split_has_its_share_of_every_phenomenon(splits, plain_rows) -> None:
    cells = Counter((row["tag"], row["label"]) for row in plain_rows)
    assert {tag for tag, _ in cells} == TAGS
    for name, rows in splits.items():
        here = Counter((row["tag"], row["label"]) for row in rows)
        for cell, total in cells.items():
            assert abs(here[cell] - total * SIZES[name] / len(plain_rows)) <= 1.5, (name, cell)


def test_the_label_shows_neither_in_length_nor_in_topic(splits, plain_rows) -> None:
    lengths = [
        [len(words(row["text"])) for row in plain_rows if row["label"] == label] for label in LABELS
    ]
    assert abs(sum(lengths[0]) - sum(lengths[1])) < len(lengths[0])  # one word on average
    topics = Counter((row["topic"], row["label"]) for row in plain_rows)
    assert len({topic for topic, _ in topics}) == 32
    assert set(topics.values()) <= {12, 13}
    for name, counts in {"train": {17, 18}, "dev": {2, 3}, "test": {5}}.items():
        assert set(Counter(row["topic"] for row in splits[name]).values()) == counts


def test_no_text_is_there_twice_or_nearly(plain_rows, hard) -> None:
    """Two texts share at most half their words; only the two of a pair may share more."""
    rows = [
        (row["text"], row.get("pair", ""), set(words(row["text"]))) for row in plain_rows + hard
    ]
    assert len({" ".join(words(text)) for text, _, _ in rows}) == len(rows)
    near = [
        (first, second)
        for (first, one, a), (second, two, b) in itertools.combinations(rows, 2)
        if len(a & b) > 0.5 * len(a | b) and not (one and one == two)
    ]
    assert near == []


def test_no_opening_is_a_habit(plain_rows, hard) -> None:
    openings = Counter(" ".join(words(row["text"])[:3]) for row in plain_rows + hard)
    assert {opening: n for opening, n in openings.items() if n > 5} == {}


def test_no_single_word_gives_the_label_away(plain_rows) -> None:
    counts = defaultdict(Counter)
    for row in plain_rows:
        for word in set(words(row["text"])):
            counts[word][row["label"]] += 1
    leaning = {
        word
        for word, count in counts.items()
        if count.total() >= 12 and max(count.values()) > 0.85 * count.total()
    }
    assert leaning == set()


def test_hard_texts_come_in_pairs_of_both_labels(pairs) -> None:
    assert len(pairs) >= 64
    assert list(pairs) == [f"p{n:03d}" for n in range(1, len(pairs) + 1)]
    for name, rows in pairs.items():
        assert sorted(row["label"] for row in rows) == LABELS, name
        assert len({row["tag"] for row in rows}) == 1, name
        assert all(8 <= len(row["text"].split()) <= 30 for row in rows), name
    assert {rows[0]["tag"] for rows in pairs.values()} == PIVOTS


def test_the_texts_of_a_pair_differ_in_exactly_one_word(pairs) -> None:
    for name, rows in pairs.items():
        assert pivot(rows) != ("", ""), name


def test_no_pivot_is_used_up(pairs) -> None:
    used = Counter(frozenset(pivot(rows)) for rows in pairs.values())
    assert max(used.values()) <= 4
    assert len(used) >= 64


def test_the_word_that_differs_does_not_name_the_label(pairs) -> None:
    """A pivot that comes back in two pairs or more is not always the positive one."""
    sides = defaultdict(Counter)
    for rows in pairs.values():
        positive = next(i for i, row in enumerate(rows) if row["label"] == "positive")
        for i, word in enumerate(pivot(rows)):
            sides[word][LABELS[i == positive]] += 1
    for word, count in sides.items():
        if count.total() >= 4:
            assert len(count) == 2, (word, count)


def test_the_card_gives_the_numbers_of_the_files(splits, plain_rows, pairs) -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    prose = " ".join(card.split())
    topics = {row["topic"] for row in plain_rows}
    assert f"{len(plain_rows)} short opinions in English on {len(topics)} kinds of things" in prose
    assert f"{len(pairs)} pairs more differ in one word" in prose
    lengths = [len(row["text"].split()) for row in plain_rows]
    mean = sum(lengths) / len(lengths)
    assert f"{min(lengths)} to {max(lengths)} words, {mean:.0f} on average" in prose

    cells = [
        [cell.strip(" `*") for cell in line.strip("|").split("|")]
        for line in card.splitlines()
        if line.startswith("|")
    ]
    table = {row[0]: row[1:] for row in cells}

    for name, rows in splits.items():
        counts = Counter(row["label"] for row in rows)
        assert table[f"{name}.tsv"][:3] == [str(len(rows)), *(str(counts[x]) for x in LABELS)]
    total = 2 * len(pairs)
    assert table["hard.tsv"][:3] == [str(total), str(len(pairs)), str(len(pairs))]

    by_tag = {row[0]: row[1:] for row in cells if row[0] in TAGS and len(row) == 6}
    assert set(by_tag) == TAGS
    for tag, (*numbers, example) in by_tag.items():
        counts = [sum(row["tag"] == tag for row in splits[name]) for name in SIZES]
        assert numbers == [str(n) for n in [*counts, sum(counts)]], tag
        text, label = re.fullmatch(r"(.+) \((\w+)\)", example).groups()
        assert any(
            (row["text"], row["label"], row["tag"]) == (text, label, tag) for row in plain_rows
        ), tag

    by_pivot = {row[0]: row[1] for row in cells if row[0] in PIVOTS and len(row) == 3}
    kinds = Counter(rows[0]["tag"] for rows in pairs.values())
    assert by_pivot == {kind: str(n) for kind, n in kinds.items()}


def test_counting_words_does_not_solve_it(splits, hard) -> None:
    model = make_pipeline(CountVectorizer(), LogisticRegression(max_iter=1000))
    train = splits["train"]
    model.fit([row["text"] for row in train], [row["label"] for row in train])

    def accuracy(rows: list[Row]) -> float:
        return model.score([row["text"] for row in rows], [row["label"] for row in rows])

    assert accuracy(train) > 0.95  # it has learned something: the texts it saw
    assert accuracy(splits["test"]) < 2 / 3
    assert 0.4 < accuracy(hard) < 0.6
