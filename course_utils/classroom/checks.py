"""Checks: run a learner's function on cases it has not seen; say right, or wrong and why.

An exercise is a reference function with cases and hints; a known mistake is a function that makes
it and the sentence that explains it:

    @exercise(cases=..., hints=("first", "second", "third"))
    def kd_loss(student_logits, teacher_logits, temperature): ...

    @kd_loss.mistake("The factor T² is missing: …")
    def no_t_squared(student_logits, teacher_logits, temperature): ...

In a notebook: `check.kd_loss(my_function)`, and `check.kd_loss.hint(2)` for more help.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import EllipsisType
from typing import Any, Literal

from course_utils.classroom import outcomes, progress_file
from course_utils.classroom.outcomes import Outcome
from course_utils.errors import CourseError

State = Literal["not attempted", "right", "wrong"]


@dataclass(frozen=True)
class Mistake:
    """A wrong answer often given: a function that gives it, and what to tell the learner."""

    function: Callable
    diagnosis: str


@dataclass(frozen=True)
class Verdict:
    """What a check found: the state, why in words, and the name of the known mistake, if any."""

    state: State
    why: str = ""
    mistake: str | None = None


@dataclass(frozen=True)
class Exercise:
    """One exercise; its name is that of its reference function.

    `cases()` gives tuples of arguments, new objects on every call, so that a function that changes
    its inputs harms nobody and is found out. `tolerance` is absolute and relative.
    """

    reference: Callable
    cases: Callable[[], Iterable[tuple]]
    hints: tuple[str, ...]
    tolerance: float = 1e-6
    mistakes: dict[str, Mistake] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.reference.__name__

    @property
    def notebook(self) -> str:
        """The notebook's number, from the module that holds the exercise: nb00 -> "00"."""
        return self.reference.__module__.rpartition(".")[2].removeprefix("nb")

    def mistake(self, diagnosis: str) -> Callable[[Callable], Callable]:
        """A decorator that adds a known wrong answer and the sentence it is answered with."""

        def add(function: Callable) -> Callable:
            self.mistakes[function.__name__] = Mistake(function, diagnosis)
            return function

        return add

    def judge(self, function: Any) -> Verdict:
        """The verdict on a learner's function; nothing is printed and nothing recorded."""
        if function is None or isinstance(function, EllipsisType):
            return Verdict("not attempted", "there is no function yet")
        if not callable(function):
            call = f"check.{self.name}({self.name})"
            return Verdict("wrong", f"Give the function itself, without calling it: {call}.")
        cases = self._fresh_cases()
        if problem := self._cannot_be_called(function, cases[0]):
            return Verdict("wrong", problem)
        found = [outcomes.run(function, case, quiet=False) for case in cases]
        if all(outcome.is_stub() for outcome in found):
            return Verdict("not attempted", "the function returns nothing")
        expected = self._outcomes_of(self.reference)
        wrong = [
            k
            for k, outcome in enumerate(found)
            if not outcome.matches(expected[k], self.tolerance)
            or not outcomes.fits(outcome.value, expected[k].value)
        ]
        if not wrong:
            return self._changed_inputs(cases) or Verdict("right")
        for name, mistake in self.mistakes.items():
            theirs = self._outcomes_of(mistake.function)
            if all(a.matches(b, self.tolerance) for a, b in zip(found, theirs, strict=True)):
                return Verdict("wrong", mistake.diagnosis, name)
        return self._unknown_mistake(function, wrong[0], found[wrong[0]], expected[wrong[0]])

    def _fresh_cases(self) -> list[tuple]:
        """The cases as nobody has touched them, the smallest first."""
        return sorted(self.cases(), key=outcomes.size)

    def _outcomes_of(self, function: Callable) -> list[Outcome]:
        return [outcomes.run(function, case) for case in self._fresh_cases()]

    def _cannot_be_called(self, function: Callable, case: tuple) -> str | None:
        try:
            inspect.signature(function).bind(*case)
        except ValueError:  # some built-in functions have no signature to look at
            return None
        except TypeError as error:
            names = ", ".join(self._argument_names())
            return f"The function is called with ({names}), and yours cannot be: {error}."
        return None

    def _changed_inputs(self, used: list[tuple]) -> Verdict | None:
        """The verdict on a right answer that left its arguments other than it found them."""
        for case, fresh in zip(used, self._fresh_cases(), strict=True):
            for name, was, now in zip(self._argument_names(), fresh, case, strict=False):
                if outcomes.is_data(was) and not outcomes.same(was, now, tolerance=0):
                    return Verdict(
                        "wrong",
                        f"The value is right, but your function changes `{name}`, which its caller "
                        "still needs. Compute new values instead of changing old ones in place.",
                    )
        return None

    def _unknown_mistake(
        self, function: Callable, k: int, found: Outcome, expected: Outcome
    ) -> Verdict:
        if found.error is not None:
            story = outcomes.in_words(found.error, function)
            return Verdict("wrong", f"Your function stopped with an error.\n    {story}")
        if not outcomes.fits(found.value, expected.value):
            got, want = outcomes.kind(found.value), outcomes.kind(expected.value)
            return Verdict("wrong", f"Your function returns {got}; {want} is expected.")
        named = zip(self._argument_names(), self._fresh_cases()[k], strict=False)
        lines = [f"{name} = {outcomes.words(value)}" for name, value in named]
        lines += [
            f"expected {outcomes.words(expected.value)}",
            f"got      {outcomes.words(found.value)}",
        ]
        return Verdict("wrong", "The result differs on this case.\n    " + "\n    ".join(lines))

    def _argument_names(self) -> list[str]:
        return list(inspect.signature(self.reference).parameters)


def exercise(
    *, cases: Callable[[], Iterable[tuple]], hints: tuple[str, ...], tolerance: float = 1e-6
) -> Callable[[Callable], Exercise]:
    """A decorator that turns the right answer into an `Exercise` of that name."""

    def make(reference: Callable) -> Exercise:
        return Exercise(reference, cases, hints, tolerance)

    return make


@functools.cache
def exercises() -> dict[str, Exercise]:
    """Every exercise by its name, in the order of the notebooks."""
    from course_utils.classroom import exercises as package

    found: dict[str, Exercise] = {}
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda module: module.name):
        for value in vars(importlib.import_module(f"{package.__name__}.{module.name}")).values():
            if isinstance(value, Exercise) and found.setdefault(value.name, value) is not value:
                raise ValueError(f"two exercises are named {value.name}")
    return found


class UnknownExercise(CourseError, AttributeError):
    """A check that does not exist."""


class Checker:
    """`check.<name>`: call it with your function, or ask it for a hint."""

    def __init__(self, exercise: Exercise):
        self._exercise = exercise

    def __call__(self, function: Any) -> None:
        """Nothing; prints the verdict and writes an attempt into the progress file."""
        name, verdict = self._exercise.name, self._exercise.judge(function)
        if verdict.state == "right":
            print(f"✓ {name}: right.")
        elif verdict.state == "not attempted":
            print(f"○ {name}: not attempted yet ({verdict.why}).")
            self.hint(1)
        else:
            _print(f"✗ {name}: {verdict.why}\n  More help: check.{name}.hint(1)")
        if verdict.state != "not attempted":
            progress_file.record(name, verdict.state == "right")

    def hint(self, number: int = 1) -> None:
        """Nothing; prints one hint. Raises `CourseError` when there is no hint of that number."""
        name, hints = self._exercise.name, self._exercise.hints
        if number not in range(1, len(hints) + 1):
            raise CourseError(
                f"{name} has no hint {number}.", do=f"Ask for a hint from 1 to {len(hints)}."
            )
        _print(f"  Hint {number} of {len(hints)}: {hints[number - 1]}")
        if number < len(hints):
            _print(f"  More help: check.{name}.hint({number + 1})")

    def __repr__(self) -> str:
        name = self._exercise.name
        return f"check.{name}(your_function) checks it; check.{name}.hint(1) helps."


def _print(text: str) -> None:
    """Prints sentences in lines that fit a cell; lines set in by four spaces stay as they are."""
    for line in text.splitlines():
        whole = line.startswith("    ")
        print(line if whole else textwrap.fill(line, width=92, subsequent_indent="  "))


class Check:
    """All checks: `check.<name>`; the exercises are looked up when the first one is used."""

    def __getattr__(self, name: str) -> Checker:
        if name.startswith("_"):  # IPython asks every object for `_repr_html_` and its kin
            raise AttributeError(name)
        if name not in exercises():
            raise UnknownExercise(
                f"There is no exercise {name}.", do=f"Use one of: {', '.join(exercises())}."
            )
        return Checker(exercises()[name])

    def __dir__(self) -> list[str]:
        return list(exercises())


check = Check()
