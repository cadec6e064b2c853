"""Quiz: questions with a few choices, answered in a cell; every choice has its own explanation.

    quiz.why_not_half()       prints the question, its choices and how to answer
    quiz.why_not_half("b")    says right or wrong, and why

The questions are data: `quizzes/nbNN.py` holds `QUESTIONS`, those of notebook NN.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import textwrap
from dataclasses import dataclass

from course_utils.classroom import progress_file
from course_utils.errors import CourseError

LETTERS = "abcdef"


@dataclass(frozen=True)
class Choice:
    """One possible answer, and what somebody who chooses it is told."""

    text: str
    why: str
    right: bool = False


@dataclass(frozen=True)
class Question:
    """A question and its choices, in the order in which they are lettered."""

    name: str
    text: str
    choices: tuple[Choice, ...]

    @property
    def key(self) -> str:
        """Its name in the progress file, where exercises have theirs."""
        return f"quiz.{self.name}"

    def lettered(self) -> dict[str, Choice]:
        """The choices by their letter, from "a" on."""
        return dict(zip(LETTERS, self.choices, strict=False))


@functools.cache
def questions() -> dict[str, dict[str, Question]]:
    """The questions by notebook ("00") and name, in the order of the notebooks."""
    from course_utils.classroom import quizzes as package

    found: dict[str, dict[str, Question]] = {}
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda module: module.name):
        data = importlib.import_module(f"{package.__name__}.{module.name}")
        for question in data.QUESTIONS:
            if any(question.name in others for others in found.values()):
                raise ValueError(f"two questions are named {question.name}")
            found.setdefault(module.name.removeprefix("nb"), {})[question.name] = question
    return found


class UnknownQuestion(CourseError, AttributeError):
    """A question that does not exist."""


class Asker:
    """`quiz.<name>`: call it to read the question, call it with a letter to answer."""

    def __init__(self, question: Question):
        self._question = question

    def __call__(self, answer: str | None = None) -> None:
        """Nothing; prints the question and, for an answer, whether it is right and why.

        An answer goes into the progress file; the output depends on nothing but `answer`.
        Raises `CourseError` when `answer` is none of the letters.
        """
        name, choices = self._question.name, self._question.lettered()
        if answer is None:
            print(self)
            return
        letter = str(answer).strip(" .)").lower()
        if letter not in choices:
            raise CourseError(
                f"{name} has no choice {answer!r}.",
                do=f'Answer with one letter of {", ".join(choices)}: quiz.{name}("a").',
            )
        chosen = choices[letter]
        print(_lines(self._question, letter))
        verdict = f"✓ {letter} is right." if chosen.right else f"✗ {letter} is not right."
        print(_fill(f"{verdict} {chosen.why}", indent="  "))
        progress_file.record(self._question.key, chosen.right)

    def __repr__(self) -> str:
        name = self._question.name
        return f'{_lines(self._question)}\n  To answer, give a letter: quiz.{name}("…")'


def _lines(question: Question, chosen: str | None = None) -> str:
    """The question and its choices as text; an arrow points at the chosen one."""
    lines = [_fill(f"? {question.text}", indent="  ")]
    for letter, choice in question.lettered().items():
        mark = "→" if letter == chosen else " "
        lines.append(_fill(f"{mark} {letter}) {choice.text}", indent="     "))
    return "\n".join(lines)


def _fill(text: str, indent: str) -> str:
    return textwrap.fill(text, width=92, subsequent_indent=indent)


class Quiz:
    """All questions: `quiz.<name>`; they are looked up when the first one is asked."""

    def __getattr__(self, name: str) -> Asker:
        if name.startswith("_"):  # IPython asks every object for `_repr_html_` and its kin
            raise AttributeError(name)
        known = _by_name()
        if name not in known:
            raise UnknownQuestion(
                f"There is no question {name}.", do=f"Use one of: {', '.join(known)}."
            )
        return Asker(known[name])

    def __dir__(self) -> list[str]:
        return list(_by_name())


def _by_name() -> dict[str, Question]:
    return {name: question for group in questions().values() for name, question in group.items()}


quiz = Quiz()
