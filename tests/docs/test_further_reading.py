"""The list of further reading is well formed, and holds what notebooks and library cite.

Whether the papers exist cannot be asked without a network; that was done when each was added.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from pages import parts  # noqa: E402 - it lives in tools/, which is no package

PAGE = (ROOT / "docs" / "further_reading.md").read_text(encoding="utf-8")
ENTRY = re.compile(
    r"- (?P<authors>[^()]+?) \((?P<year>\d{4})\), \*(?P<title>[^*]+)\*, "
    r"\[(?P<name>[^\]]+)\]\((?P<address>[^ ]+)\)\.\n"
    r"  (?P<reason>.+) For (?P<notebooks>\[.+\))\.$",
    flags=re.MULTILINE,
)
ARXIV = re.compile(r"(\d\d)(\d\d)\.\d{4,5}")
# There is neither a DOI nor a copy on arXiv.
ELSEWHERE = ("https://transformer-circuits.pub/", "https://proceedings.neurips.cc/")
CITED = re.compile(r"([A-ZÉ]\w+)(?: et al\.| and others)'?s?,? \(?((?:19|20)\d\d)")
TO_READ = re.compile(r"(?:- |; |, and )([A-ZÉ]\w+)[^()*;]* \((\d{4})\), \*([^*]+)\*")


@pytest.fixture(scope="module")
def entries():
    return [match.groupdict() for match in ENTRY.finditer(PAGE)]


def first(entry):
    return re.split(r",| and others", entry["authors"])[0]


def test_every_line_of_the_list_is_an_entry(entries):
    assert len(entries) == len(re.findall(r"^- ", PAGE, flags=re.MULTILINE)) > 50


def test_addresses_are_those_of_the_identifiers(entries):
    for entry in entries:
        kind, _, number = entry["name"].partition(":")
        if kind == "arXiv":
            year, month = map(int, ARXIV.fullmatch(number).groups())
            assert entry["address"] == f"https://arxiv.org/abs/{number}"
            assert 1 <= month <= 12
            assert 0 <= int(entry["year"]) - 2000 - year <= 3, "cited before it appeared, or late"
        elif kind == "doi":
            assert re.fullmatch(r"10\.\d{4,}/\S+", number)
            assert entry["address"] == f"https://doi.org/{number}"
        else:
            assert entry["address"].startswith(ELSEWHERE)


def test_nothing_is_listed_twice(entries):
    for key in ("address", "title"):
        assert len({entry[key] for entry in entries}) == len(entries)


def test_reasons_say_something_and_notebooks_exist(entries):
    for entry in entries:
        assert len(entry["reason"].split()) >= 4, entry["title"]
        linked = re.findall(
            r"\[notebook (\d\d)\]\(\.\./notebooks/(\d\d)(_\w+\.ipynb)\)", entry["notebooks"]
        )
        assert len(linked) == entry["notebooks"].count("["), entry["title"]
        for number, same, rest in linked:
            assert number == same
            assert (ROOT / "notebooks" / (same + rest)).exists()


def test_what_a_notebook_tells_to_read_is_listed_for_it(entries):
    told = [
        (path.name[:2], *match)
        for path in sorted((ROOT / "notebooks" / "source").glob("[0-9]*.py"))
        for match in TO_READ.findall(path.read_text(encoding="utf-8").replace("\n#   ", " "))
    ]
    assert len(told) > 40
    for number, author, year, title in told:
        fits = [
            entry
            for entry in entries
            if (first(entry), entry["year"]) == (author, year) and entry["title"].startswith(title)
        ]
        assert len(fits) == 1, f"{author} {year}, {title}: add it"
        assert f"[notebook {number}]" in fits[0]["notebooks"], f"{title} belongs to {number}"


def test_what_notebooks_and_library_cite_is_listed(entries):
    listed = {(first(entry), entry["year"]) for entry in entries}
    files = [*ROOT.glob("course_utils/**/*.py"), *ROOT.glob("notebooks/source/*.py")]
    texts = [re.sub(r"\s*\n[#\s]*", " ", path.read_text(encoding="utf-8")) for path in files]
    texts += [part.source for path in ROOT.glob("docs/full_run.md") for part in parts(path)]
    cited = {pair for text in texts for pair in CITED.findall(text)}
    assert len(cited) > 30
    assert cited - listed == set()
