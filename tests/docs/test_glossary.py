"""Glossary and notebooks agree: each term is linked once, where the course first stresses it.

The rule: of all words that the notebooks' text sets in *italics* or **bold**, in the order of the
syllabus, the first that are the term, or the words under which it is linked, are the link.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from notebook_source import read_source, tags  # noqa: E402 - they live in tools/, no package
from pages import parse, slug, words  # noqa: E402

GLOSSARY = "../docs/glossary.md#"
FIRST = "First in [notebook {number}](../notebooks/{name}.ipynb), “{section}”."


@dataclass(frozen=True)
class Stressed:
    """Words in italics or bold: where they stand, and which anchor of the glossary they lead to."""

    notebook: str
    section: str
    text: str
    anchor: str | None


def stressed_in(name: str, cells: list[str]) -> list[Stressed]:
    """All stressed words of a notebook's text cells, in their order."""
    found, section = [], ""
    for cell in cells:
        tokens = parse(cell)
        for before, token in zip([None, *tokens], tokens, strict=False):
            if before and before.type == "heading_open":
                section = words(token)
            elif token.type == "inline":
                found += [Stressed(name, section, *pair) for pair in _stressed(token)]
    return found


def _stressed(token):
    """The stressed words of an inline token, with their anchor or None."""
    target, begin = None, None
    for k, child in enumerate(token.children):
        if child.type == "link_open":
            target = str(child.attrs["href"])
        elif child.type == "link_close":
            target = None
        elif child.type in ("em_open", "strong_open"):
            begin = k
        elif child.type in ("em_close", "strong_close") and begin is not None:
            inside = type(token)("inline", "", 0, children=token.children[begin:k])
            linked = (target or "").startswith(GLOSSARY)
            yield words(inside), target.removeprefix(GLOSSARY) if linked else None
            begin = None


def entries_of(glossary: str) -> dict[str, str]:
    """The text of each entry by its term."""
    parts = re.split(r"^## (.+)$", glossary, flags=re.MULTILINE)
    return {term: text.strip() for term, text in zip(parts[1::2], parts[2::2], strict=True)}


def faults(entries: dict[str, str], course: list[Stressed]) -> list[str]:
    """What is wrong between the glossary and the stressed words of the course."""
    found = [
        f"{use.notebook}: {use.text!r} leads to #{use.anchor}, which is no entry"
        for use in course
        if use.anchor and use.anchor not in map(slug, entries)
    ]
    for term, text in entries.items():
        uses = [use for use in course if use.anchor == slug(term)]
        if len(uses) != 1:
            found.append(f"{term}: linked {len(uses)} times instead of once")
            continue
        [use] = uses
        names = {term.casefold(), use.text.casefold()}
        first = next(one for one in course if one.text.casefold() in names)
        if first != use:
            found.append(f"{term}: {use.notebook} links it, {first.notebook} has it before")
        line = FIRST.format(number=use.notebook[:2], name=use.notebook, section=use.section)
        if not text.endswith(line):
            found.append(f"{term}: its entry has to end with: {line}")
    return found


@pytest.fixture(scope="module")
def entries():
    return entries_of((ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def course():
    return [
        use
        for source in sorted((ROOT / "notebooks" / "source").glob("[0-9]*.py"))
        for use in stressed_in(
            source.stem,
            [
                cell.source
                for cell in read_source(source).cells
                if cell.cell_type == "markdown" and "solution" not in tags(cell)
            ],
        )
    ]


def test_each_term_is_linked_from_its_first_use_and_each_link_has_an_entry(entries, course):
    assert len(entries) > 100
    assert faults(entries, course) == []


def test_terms_are_in_the_order_of_the_alphabet(entries):
    terms = [re.sub(r"[^\w ]", "", term.casefold().replace("-", " ")) for term in entries]
    assert terms == sorted(terms)


def test_entries_are_short_and_say_something(entries):
    for term, text in entries.items():
        says = text.partition("In the library:")[0].partition("First in ")[0]
        assert 6 <= len(says.split()) <= 90, term


ENTRIES = {"logits": FIRST.format(number="01", name="01_small", section="A number")}
LINK = "[*logits*](../docs/glossary.md#logits)"


@pytest.mark.parametrize(
    ("cells", "fault"),
    [
        ([f"# A number\nThe {LINK}."], None),
        (["# A number\nThe logits, plain.", f"The {LINK}, and *logits* again."], None),
        ([f"# A number\n*logits* and then {LINK}."], "has it before"),
        ([f"# A number\n**Logits** and then {LINK}."], "has it before"),
        (["# A number\n*logits*"], "linked 0 times"),
        ([f"# A number\n{LINK} {LINK}"], "linked 2 times"),
        ([f"# Another\n{LINK}"], "has to end with"),
        ([f"# A number\n{LINK} [*odds*](../docs/glossary.md#odds)"], "is no entry"),
    ],
)
def test_made_up_courses(cells, fault):
    found = faults(ENTRIES, stressed_in("01_small", cells))
    assert len(found) == (fault is not None)
    assert fault is None or fault in found[0]
