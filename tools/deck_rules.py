"""What a deck must satisfy; the tests ask here. Whether it fits the screen, a browser must say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from deck import FENCE, IMAGE, Deck, Slide
from deck_markdown import expand

from course_utils.classroom.checks import exercises
from course_utils.errors import CourseError

ROLES = ("title", "question", "picture", "formula", "demo", "exercise", "takeaway")
FRONT = {"marp": "true", "theme": "shrinking-bert", "paginate": "true", "math": "mathjax"} | {
    "lang": "en"
}
SLIDES = range(12, 21)
LEAST_MINUTES, MOST_MINUTES = 15, 45
MOST_WORDS = 60  # with the title, without code and formulas
RAW_HTML = re.compile(r"</?[a-zA-Z][^>\n]*>")
INLINE_CODE = re.compile(r"`[^`\n]+`")
FORMULA = re.compile(r"\$\$.*?\$\$|\$[^$\n]+\$", re.DOTALL)


def problems(deck: Deck, notebooks: Path) -> list[str]:
    """Everything that is wrong with a deck, one sentence each."""
    found = [*_problems_of_front(deck, notebooks), *_problems_of_course(deck)]
    for number, slide in enumerate(deck.slides, 1):
        found += [f"slide {number}: {what}" for what in _problems_of_slide(slide)]
    try:
        expand(deck, notebooks)
    except CourseError as error:
        found.append(str(error))
    return found


def _problems_of_front(deck: Deck, notebooks: Path) -> Iterator[str]:
    if not (notebooks / f"{deck.path.stem}.ipynb").exists():
        yield "there is no notebook of the same name"
    settings = dict(re.findall(r"^(\w+): *(.*?) *$", deck.front, flags=re.MULTILINE))
    for key, value in FRONT.items():
        if settings.get(key) != value:
            yield f"its front matter must say `{key}: {value}`"
    if not deck.title.startswith(f"{deck.number} · "):
        yield f'its front matter must say `title: "{deck.number} · …"`'


def _problems_of_course(deck: Deck) -> Iterator[str]:
    if len(deck.slides) not in SLIDES:
        yield f"it has {len(deck.slides)} slides; {SLIDES[0]} to {SLIDES[-1]} are wanted"
    minutes = deck.minutes(exercises=False)
    if not LEAST_MINUTES <= minutes <= MOST_MINUTES:
        yield (
            f"it takes {minutes:g} minutes without the exercises; "
            f"{LEAST_MINUTES} to {MOST_MINUTES} are wanted"
        )
    missing = [role for role in ROLES if role not in {slide.role for slide in deck.slides}]
    if missing:
        yield f"no slide is a {', a '.join(missing)}"
    own = {name for name, exercise in exercises().items() if exercise.notebook == deck.number}
    for number, slide in enumerate(deck.slides, 1):
        if slide.role == "exercise":
            named = re.findall(r"check\.(\w+)", slide.shown)
            if not named or not own.issuperset(named):
                yield (
                    f"slide {number}: an exercise names one of the notebook's: "
                    f"{', '.join(f'check.{name}' for name in sorted(own))}"
                )


def _problems_of_slide(slide: Slide) -> Iterator[str]:
    if slide.role not in (None, *ROLES):
        yield f"there is no role {slide.role}; use one of {', '.join(ROLES)}"
    if not slide.title:
        yield "it has no title"
    elif not re.search(r"^# " if slide.role == "title" else r"^## ", slide.shown, re.MULTILINE):
        yield "its title is not a heading #, on the title slide, or ##, on the others"
    if slide.minutes is None:
        yield "its notes do not begin with a line `Minutes: 2`"
    elif len(re.sub(r"^Minutes:.*", "", " ".join(slide.notes)).split()) < 5:
        yield "its notes say nothing but the minutes"
    if len(slide.notes) > 1:
        yield "it has more than one comment of notes"
    words = FORMULA.sub("", INLINE_CODE.sub("", FENCE.sub("", slide.shown)))
    count = len(re.findall(r"\w[\w'’-]*", IMAGE.sub("", words)))
    if count > MOST_WORDS:
        yield f"it has {count} words; {MOST_WORDS} are the most that a room can read"
    if tag := RAW_HTML.search(words):
        yield f"it holds HTML: {tag[0]}"
