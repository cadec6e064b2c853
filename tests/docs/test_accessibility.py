"""What docs/accessibility.md promises, as far as a program can see it."""

from __future__ import annotations

import json
import re
import sys
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from looks import SIGHT, alike_but_for_colour, contrast_on_white, difference, lab, linear

from course_utils.classroom.attention_view import WHITE_TO_BLUE
from course_utils.classroom.lines import LOOKS
from course_utils.classroom.plots import COLOURS

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from pages import headings, links, pages, parts  # noqa: E402 - it lives in tools/, no package

PAGES = pages(ROOT)
DOCUMENTS = [path for path in PAGES if "slides" not in path.parts]  # a slide has its own rules
NOTEBOOKS = [path for path in PAGES if path.suffix == ".ipynb"]
SAYS_NOTHING = {"", "here", "click", "click here", "this", "link", "this link", "more", "read more"}
NO_WORDS = re.compile(r"image|figure|picture|\S+\.(png|svg|jpe?g)|.{0,11}", re.IGNORECASE)


def name(path):
    return str(path.relative_to(ROOT))


def faults_in_headings(levels: list[int]) -> list[str]:
    """What is wrong with the levels of a page's headings."""
    found = []
    if levels[:1] != [1]:
        found.append("it does not begin with a heading of level 1")
    if levels.count(1) != 1:
        found.append(f"it has {levels.count(1)} headings of level 1")
    return found + [f"{b} follows {a}" for a, b in pairwise(levels) if b > a + 1]


def faults_in_links(page: Path) -> list[str]:
    """The links and images of a page whose words do not say where they lead or what they show."""
    return [
        f"{link.place}: {link.text!r}"
        for link in links(page)
        if (link.image and not link.target.startswith("cell:") and NO_WORDS.fullmatch(link.text))
        or (not link.image and link.text.strip(" .").lower() in SAYS_NOTHING)
    ]


def faults_in_tables(page: Path) -> list[str]:
    """Where a column has no heading; the first, which names the rows, may go without."""
    return [
        part.place or name_of_first
        for part in parts(page)
        for row, name_of_first in heading_rows(part.tokens)
        if not all(row[1:])
    ]


def heading_rows(tokens) -> list[tuple[list[str], str]]:
    """For each table the words of its headings, and the first of them that says something."""
    rows: list[list[str]] = []
    for before, token in pairwise(tokens):
        if before.type == "thead_open":
            rows.append([])
        elif before.type == "th_open":
            rows[-1].append(token.content)
    return [(row, next(filter(None, row), "a table")) for row in rows]


@pytest.mark.parametrize("page", DOCUMENTS, ids=name)
def test_headings_are_in_order(page):
    assert faults_in_headings([heading.level for heading in headings(page)]) == []


@pytest.mark.parametrize(
    "levels", [[], [2], [1, 1], [1, 3], [1, 2, 4, 2], [2, 1]], ids=lambda levels: str(levels)
)
def test_headings_out_of_order_are_found(levels):
    assert faults_in_headings(levels)


def test_headings_may_go_back_up():
    assert faults_in_headings([1, 2, 3, 3, 2, 3, 4, 2]) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_images_and_tables_say_what_they_are(page):
    assert faults_in_links(page) == []
    assert faults_in_tables(page) == []


@pytest.mark.parametrize(
    "text",
    [
        "See [here](a.md).",
        "[Click here](a.md)",
        "[](a.md)",
        "![](a.png)",
        "![figure](a.png)",
        "![results.png](a.png)",
        "| a | |\n|---|---|\n| 1 | 2 |",
    ],
)
def test_pages_that_say_nothing_are_found(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(f"# A page\n\n{text}\n", encoding="utf-8")
    assert faults_in_links(page) + faults_in_tables(page)


def test_a_good_page_has_no_fault(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A page\n\n[the results](a.md) ![Accuracy against size for four models](a.png)\n\n"
        "| | size |\n|---|---|\n| a | 1 |\n",
        encoding="utf-8",
    )
    assert faults_in_links(page) + faults_in_tables(page) == []


@pytest.mark.parametrize("page", NOTEBOOKS, ids=name)
def test_what_a_notebook_shows_has_words_and_table_headings(page):
    for cell in json.loads(page.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            data, metadata = output.get("data", {}), output.get("metadata", {})
            for kind in [kind for kind in data if kind.startswith("image/")]:
                assert len(metadata.get(kind, {}).get("alt", "").split()) >= 5
            html = "".join(data.get("text/html", ""))
            assert html.count("<table") <= html.count("<th"), "a table without headings"


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_that_stand_together_are_told_apart(sight):
    used = [colour for colour in COLOURS if colour != "yellow"]  # weak on white, so not for lines
    near = {
        (one, other): round(difference(COLOURS[one], COLOURS[other], sight))
        for one, other in combinations(used, 2)
    }
    assert min(near.values()) >= 15, sorted(near.items(), key=lambda pair: pair[1])[:3]


def test_lines_are_seen_on_white_and_differ_in_dash_and_marker():
    assert all(contrast_on_white(COLOURS[colour]) >= 3 for colour, *_ in LOOKS)
    for one, other in combinations(LOOKS, 2):
        assert all(a != b for a, b in zip(one, other, strict=True))


def test_maps_of_numbers_say_more_by_being_darker():
    lightness = [lab(linear(WHITE_TO_BLUE(k / 20)[:3]))[0] for k in range(21)]
    assert all(a > b + 1 for a, b in pairwise(lightness))


def drawn(*looks, bars=False):
    figure, axes = plt.subplots()
    for k, look in enumerate(looks):
        if bars:
            axes.bar([k], [1], label=str(k), **look)
        else:
            axes.errorbar([0, 1], [k, 1], [0.1, 0.1], label=str(k), **look)
    plt.close(figure)
    return figure


RED, GREEN, BLACK = "#d55e00", "#009e73", "#000000"


def test_lines_and_bars_that_differ_in_hue_alone_are_found():
    assert alike_but_for_colour(drawn({"color": RED}, {"color": GREEN})) == [("0", "1")]
    assert alike_but_for_colour(drawn({"color": RED}, {"color": GREEN}, bars=True)) == [("0", "1")]


@pytest.mark.parametrize(
    "other",
    [
        {"color": GREEN, "linestyle": "--"},
        {"color": GREEN, "marker": "s"},
        {"color": BLACK},
        {"color": RED},
    ],
)
def test_lines_that_differ_in_something_else_pass(other):
    assert alike_but_for_colour(drawn({"color": RED}, other)) == []


def test_bars_with_hatches_pass():
    looks = {"color": RED}, {"color": GREEN, "hatch": "//"}
    assert alike_but_for_colour(drawn(*looks, bars=True)) == []
