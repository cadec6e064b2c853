"""How many minutes the parts of a chapter take, and lesson plans whose minutes add up.

Talking is what the notes of a deck say, without its slides of exercises. Reading is by words.
Computing is the measured run (docs/results/notebooks.json). An exercise is what the notebook
allows for it.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import timings
from deck import read_deck
from notebook_source import read_source, tags

from course_utils.errors import CourseError

WORDS_PER_MINUTE = 120  # half the speed of fiction: formulas, and for many a second language
PROFILE = "cpu"  # a class works on laptops
ALLOWED = re.compile(r"Difficulty: \w+ · about (\d+) minutes")


@dataclass(frozen=True)
class Chapter:
    """The minutes of a chapter by what one does."""

    number: str
    title: str
    talk: int
    read: int
    compute: int
    exercises: dict[str, int]
    on_slides: frozenset[str] = frozenset()  # those of the exercises that the deck sets


@dataclass(frozen=True)
class Step:
    """A part of a lesson."""

    what: str
    minutes: int


@dataclass(frozen=True)
class Session:
    """What a class does without going home, and what it takes home."""

    plan: str
    title: str
    limit: int
    steps: tuple[Step, ...]
    home: tuple[Step, ...] = field(default=())

    @property
    def minutes(self) -> int:
        """The minutes of all steps."""
        return sum(step.minutes for step in self.steps)


@cache
def chapters(root: Path) -> dict[str, Chapter]:
    """Every chapter of the course by its number.

    Raises `CourseError` when a notebook's run was not measured.
    """
    sources = sorted((root / "notebooks" / "source").glob("[0-9]*.py"))
    return {chapter.number: chapter for chapter in (_chapter(path, root) for path in sources)}


def measured(root: Path) -> dict[str, dict[str, dict]]:
    """Time and memory by notebook and profile; empty when nothing was measured."""
    file = root / timings.FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _chapter(source: Path, root: Path) -> Chapter:
    try:
        seconds = measured(root)[source.stem][PROFILE]["seconds"]
    except KeyError:
        raise CourseError(
            f"The run of notebook {source.stem} was not measured.",
            where=timings.FILE,
            do=f"python tools/build_notebooks.py {source.stem[:2]} --execute --timed",
        ) from None
    cells = read_source(source).cells
    words = sum(
        len(cell.source.split())
        for cell in cells
        if cell.cell_type == "markdown" and "solution" not in tags(cell)
    )
    exercises, allowed = {}, None
    for cell in cells:
        if cell.cell_type == "markdown":
            found = ALLOWED.findall(cell.source)
            allowed = int(found[-1]) if found else allowed
        elif allowed and (name := re.match(r"check\.(\w+)\(", cell.source)):
            exercises[name[1]], allowed = allowed, None
    deck = read_deck(root / "slides" / f"{source.stem}.md")
    talk = sum(slide.minutes or 0 for slide in deck.slides if slide.role != "exercise")
    number, _, title = deck.title.partition(" · ")
    return Chapter(
        number,
        title,
        talk=math.ceil(talk),
        read=math.ceil(words / WORDS_PER_MINUTE),
        compute=math.ceil(seconds / 60),
        exercises=exercises,
        on_slides=frozenset(
            name
            for slide in deck.slides
            if slide.role == "exercise"
            for name in re.findall(r"check\.(\w+)", slide.shown)
            if name in exercises
        ),
    )


def sessions(root: Path) -> list[Session]:
    """The sessions of slides/plans.toml in their order, with the minutes of every step.

    Raises `CourseError` when a step is not understood, or a session is longer than it may be.
    """
    file = root / "slides" / "plans.toml"
    written = tomllib.loads(file.read_text(encoding="utf-8"))
    return [
        _session(plan, session, root)
        for plan, listed in written["plans"].items()
        for session in listed
    ]


def _session(plan: str, written: dict, root: Path) -> Session:
    known = chapters(root)
    steps = tuple(_step(words, known) for words in written["steps"])
    done = {words.split()[1] for words in written["steps"] if words.startswith("exercise ")}
    home = tuple(_at_home(known[number], done) for number in written.get("home", ()))
    session = Session(plan, written["title"], written["minutes"], steps, home)
    if session.minutes > session.limit:
        raise CourseError(
            f"{plan}, {session.title}: {session.minutes} minutes do not go into {session.limit}.",
            where="slides/plans.toml",
            do="Take an exercise or a talk out of its steps, or give it more minutes.",
        )
    return session


def _step(words: str, known: dict[str, Chapter]) -> Step:
    """`talk 03`, `work 03`, `demo 03`, `exercise NAME`, `pause 10`, `discuss 10 The question?`."""
    kind, _, rest = words.partition(" ")
    minutes, _, about = rest.partition(" ")
    if kind == "pause" and minutes.isdigit():
        return Step("*Pause*", int(minutes))
    if kind == "discuss" and minutes.isdigit() and about:
        return Step(f"Discuss: {about}", int(minutes))
    if kind in ("talk", "work", "demo") and rest in known:
        chapter = known[rest]
        what = f"{chapter.number} {chapter.title}"
        if kind == "talk":
            return Step(f"Slides, {what}", chapter.talk)
        if kind == "demo":
            return Step(f"Run the notebook together, {what}", chapter.compute)
        return Step(f"Read and run the notebook, {what}", chapter.read + chapter.compute)
    if kind == "exercise":
        for chapter in known.values():
            if rest in chapter.on_slides:
                what = f"Exercise `{rest}`, notebook {chapter.number}"
                return Step(what, chapter.exercises[rest])
            if rest in chapter.exercises:
                set_there = ", ".join(sorted(chapter.on_slides))
                raise CourseError(
                    f"No slide sets the exercise {rest}, so a class cannot be given it.",
                    where="slides/plans.toml",
                    do=f"Choose of those that the slides of {chapter.number} set: {set_there}.",
                )
    raise CourseError(
        f"The step “{words}” is not understood.",
        where="slides/plans.toml",
        do="Write: talk 03, work 03, demo 03, exercise NAME, pause 10, or discuss 10 The question?",
    )


def _at_home(chapter: Chapter, done: set[str]) -> Step:
    left = [minutes for name, minutes in chapter.exercises.items() if name not in done]
    what = f"notebook {chapter.number} {chapter.title}, with {len(left)} exercises"
    return Step(what, chapter.read + chapter.compute + sum(left))
