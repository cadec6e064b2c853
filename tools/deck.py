"""A deck of slides as its author wrote it: its slides, their roles, notes and minutes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from course_utils.errors import CourseError

COMMENT = re.compile(r"<!--(.*?)-->", re.DOTALL)
ROLE = re.compile(r"^\s*_class:\s*(\S+)\s*$")
MINUTES = re.compile(r"^Minutes:[ ]*(\d+(?:\.\d+)?)[ ]*$", re.MULTILINE)
FENCE = re.compile(
    r"^(?P<ticks>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=ticks)[ ]*$\n?", re.M | re.S
)
IMAGE = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<target>[^)]*)\)")


@dataclass(frozen=True)
class Slide:
    """One slide as written; `text` holds its comments, too."""

    text: str

    @property
    def role(self) -> str | None:
        """The class of the slide, from `<!-- _class: ROLE -->`."""
        roles = [match[1] for c in COMMENT.findall(self.text) if (match := ROLE.match(c))]
        return roles[0] if roles else None

    @property
    def notes(self) -> list[str]:
        """What the speaker reads: the comments that give Marp no order."""
        return [c.strip() for c in COMMENT.findall(self.text) if not c.lstrip().startswith("_")]

    @property
    def minutes(self) -> float | None:
        """How long it takes, from the first line of its notes."""
        found = [match for note in self.notes if (match := MINUTES.match(note))]
        return float(found[0][1]) if found else None

    @property
    def shown(self) -> str:
        """The slide without its comments."""
        return COMMENT.sub("", self.text).strip()

    @property
    def title(self) -> str:
        """Its first heading."""
        heading = re.search(r"^#+ +(.+)$", FENCE.sub("", self.shown), flags=re.MULTILINE)
        return heading[1] if heading else ""


@dataclass(frozen=True)
class Deck:
    """A deck: the file it is from, its front matter, its slides."""

    path: Path
    front: str
    slides: tuple[Slide, ...]

    @property
    def number(self) -> str:
        """The number of its notebook: "03"."""
        return self.path.stem.partition("_")[0]

    @property
    def title(self) -> str:
        """The title in its front matter."""
        found = re.search(r'^title: "?(.*?)"?$', self.front, flags=re.MULTILINE)
        return found[1] if found else self.path.stem

    def minutes(self, *, exercises: bool) -> float:
        """The minutes of the slides that are exercises, or of all the others."""
        chosen = [slide for slide in self.slides if (slide.role == "exercise") == exercises]
        return sum(slide.minutes or 0 for slide in chosen)


def read_deck(path: Path) -> Deck:
    """The deck in a file. Raises `CourseError` when it does not begin with a front matter."""
    text = path.read_text(encoding="utf-8")
    found = re.match(r"---\n(.*?)\n---\n(.*)", text, flags=re.DOTALL)
    if not found:
        raise CourseError(
            "The deck has no front matter.",
            where=path.name,
            do="Begin it with the lines between two --- that the other decks begin with.",
        )
    if match := re.search(r"^(.*\S.*)\n---[ ]*$", found[2], flags=re.MULTILINE):
        raise CourseError(
            f"A line --- follows “{match[1].strip()}”: Markdown takes that line for a heading.",
            where=path.name,
            do="Leave an empty line above ---.",
        )
    slides = re.split(r"^---[ ]*$", found[2], flags=re.MULTILINE)
    return Deck(path, found[1], tuple(Slide(slide.strip()) for slide in slides))
