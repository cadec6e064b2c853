"""The pages that people read, parsed: documents, data cards, slides, and notebooks' Markdown."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.front_matter import front_matter_plugin

PAGES = ("*.md", "docs/**/*.md", "data/**/*.md", "slides/**/*.md", "notebooks/*.ipynb")
HTML_LINK = re.compile(r"\b(?:href|src)\s*=\s*[\"']([^\"']*)[\"']", re.IGNORECASE)

PARSER = MarkdownIt("commonmark").enable("table")
PARSER.use(front_matter_plugin).use(dollarmath_plugin, allow_space=False, allow_digits=False)
PARSER.validateLink = lambda url: True  # a forbidden link is still a link, and to be reported


@dataclass(frozen=True)
class Part:
    """A piece of Markdown with the place it stands at: "cell 3" of a notebook, or ""."""

    place: str
    source: str

    @property
    def tokens(self) -> tuple[Token, ...]:
        """What the Markdown consists of."""
        return parse(self.source)


@dataclass(frozen=True)
class Heading:
    """A heading, its level from 1 to 6, and where it stands."""

    place: str
    level: int
    text: str


@dataclass(frozen=True)
class Link:
    """A link or an image: where it stands, where it leads, and its words."""

    place: str
    target: str
    text: str
    image: bool = False


def pages(root: Path) -> list[Path]:
    """The paths of all pages below `root`, sorted, without the copies that JupyterLab keeps."""
    found = {path for pattern in PAGES for path in root.glob(pattern)}
    return sorted(path for path in found if ".ipynb_checkpoints" not in path.parts)


@cache
def parse(source: str) -> tuple[Token, ...]:
    """What a piece of Markdown consists of; the same piece is read once."""
    return tuple(PARSER.parse(source))


def parts(path: Path) -> list[Part]:
    """The Markdown of a page: a file as a whole, a notebook by its text cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return [Part("", text)]
    return [
        Part(f"cell {k}", "".join(cell["source"]))
        for k, cell in enumerate(json.loads(text)["cells"], 1)
        if cell["cell_type"] == "markdown"
    ]


def words(token: Token) -> str:
    """What a reader reads of an inline token."""
    kept = ("text", "code_inline", "math_inline", "image")
    blanks = {"softbreak": " ", "hardbreak": " "}
    children = token.children or []
    return "".join(c.content if c.type in kept else blanks.get(c.type, "") for c in children)


def headings(path: Path) -> list[Heading]:
    """The headings of a page in their order."""
    return [
        Heading(_place(part, token), int(token.tag[1]), words(inline))
        for part in parts(path)
        for tokens in [part.tokens]
        for token, inline in pairwise(tokens)
        if token.type == "heading_open"
    ]


def links(path: Path) -> list[Link]:
    """The links and images of a page in their order, in Markdown and in HTML."""
    return [
        link
        for part in parts(path)
        for token in part.tokens
        for link in _links(token, _place(part, token))
    ]


def _links(token: Token, place: str) -> Iterator[Link]:
    if token.type == "html_block":
        yield from (Link(place, target, "") for target in HTML_LINK.findall(token.content))
    children = token.children or []
    for k, child in enumerate(children):
        if child.type == "image":
            yield Link(place, str(child.attrs["src"]), child.content, image=True)
        elif child.type == "link_open":
            end = next(i for i, c in enumerate(children[k:], k) if c.type == "link_close")
            inside = Token("inline", "", 0, children=children[k:end])
            yield Link(place, str(child.attrs["href"]), words(inside))
        elif child.type == "html_inline":
            yield from (Link(place, target, "") for target in HTML_LINK.findall(child.content))


def texts(path: Path, kind: str) -> list[tuple[str, str]]:
    """Where each run of a kind of text, such as "code_inline", stands, and what it says."""
    return [
        (_place(part, token), child.content)
        for part in parts(path)
        for token in part.tokens
        for child in token.children or []
        if child.type == kind
    ]


def _place(part: Part, token: Token) -> str:
    return part.place or f"line {token.map[0] + 1 if token.map else 1}"


def anchors(path: Path) -> set[str]:
    """The places within a page that a link can name.

    GitHub makes them of headings in lower case without punctuation, Jupyter keeps case and
    punctuation; both put a hyphen for a blank, and GitHub numbers repeated ones.
    """
    texts = [heading.text for heading in headings(path)]
    if path.suffix == ".ipynb":
        return {text.replace(" ", "-") for text in texts}
    found: dict[str, int] = {}
    result = set()
    for text in texts:
        name = slug(text)
        count = found[name] = found.get(name, -1) + 1
        result.add(f"{name}-{count}" if count else name)
    return result


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    kept = (c for c in heading.strip().lower() if c in "- " or _is_word(c))
    return "".join(kept).replace(" ", "-")


def _is_word(character: str) -> bool:
    kind = unicodedata.category(character)
    return kind[0] in "LM" or kind in ("Nd", "Pc")
