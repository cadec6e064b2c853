"""Make it fit: a budget, a pipeline that the learner composes, and which limits it keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from numbers import Real
from typing import Any

from IPython.display import display

from course_utils.classroom.live import Live, ipywidgets
from course_utils.errors import DataError
from course_utils.lab.operations import NUMBERS, Operation, parse, written
from course_utils.measure.report import Row

NEAR = 3  # so many others are named
VERBS = ("layers", "prune", "rank", "words", "trim")  # the order in which a line is composed
LEFT_OUT = "–"


@dataclass(frozen=True)
class Budget:
    """What a model may cost at most: megabytes on disk, milliseconds for one text, points lost.

    Points are percentage points of accuracy below the teacher. Raises `DataError` for a limit that
    nothing can keep.
    """

    mb: float
    ms: float
    points: float

    def __post_init__(self) -> None:
        for name, least in (("mb", "above"), ("ms", "above"), ("points", "at least")):
            value = getattr(self, name)
            if (
                not isinstance(value, Real)
                or not math.isfinite(value)
                or value < 0
                or (value == 0 and least == "above")
            ):
                raise DataError(
                    f"A budget of {name}={value!r} cannot be kept.",
                    do=f"Give a number {least} 0: Budget(mb=5, ms=3, points=2).",
                )

    def __str__(self) -> str:
        return (
            f"at most {_short(self.mb)} MB, {_short(self.ms)} ms, {_short(self.points)} points lost"
        )


@dataclass(frozen=True)
class Limit:
    """One limit of a budget: whether it holds, and by how much, in words."""

    holds: bool
    words: str

    def __str__(self) -> str:
        return f"{'✓' if self.holds else '✗'} {self.words}"


@dataclass(frozen=True)
class Verdict:
    """What is known of a pipeline: its limits, none if it was not measured, and a note."""

    line: str
    limits: tuple[Limit, ...] = ()
    note: str = ""

    @property
    def fits(self) -> bool:
        """Whether the pipeline was measured and keeps every limit."""
        return bool(self.limits) and all(limit.holds for limit in self.limits)

    def __str__(self) -> str:
        heading = f"{self.line}: it fits." if self.fits else f"{self.line}: it does not fit."
        return "\n".join(
            [heading if self.limits else self.line, *map(str, self.limits), self.note]
        ).rstrip()


def verdict(line: str, results: Mapping[str, Any], budget: Budget) -> Verdict:
    """Which limits the pipeline `line` keeps, by the rows of a lab run.

    The note names what is smaller and keeps all limits, too; of a line that this run has not
    measured, how to measure it and which are near; of one that cannot be, why. `print` shows it.
    """
    if not isinstance(line, str):  # the cell as it comes, `line = ...`
        return Verdict("No pipeline yet", note='Write one, as in line = "layers 3, trim, int8".')
    teacher, *_ = rows = results["rows"]
    measured = {_canonical(row["name"]): row for row in rows}
    name = _canonical(line)
    if name in measured:
        row = measured[name]
        limits = _limits(row, teacher, budget)
        return Verdict(row["name"], limits, _smaller(row, rows, budget))
    try:
        operations = parse(line)
    except DataError as error:
        return Verdict(line, note=f"{error.what} {error.do}")
    near = sorted((row["name"] for row in rows[1:]), key=lambda n: _distance(operations, parse(n)))
    note = f"This run has not measured it. To measure it:\n  {command(name)}"
    return Verdict(name, note="\n  ".join([f"{note}\nNear it, and measured:", *near[:NEAR]]))


def command(line: str) -> str:
    """What to type in a terminal to have a pipeline measured."""
    return f'course run --lab --pipeline "{line}"'


def composed(operations: Sequence[Operation], results: Mapping[str, Any]) -> str:
    """The line of these operations: in the order in which they were measured, else as they come.

    No operation at all is the teacher.
    """
    teacher, *rows = (row["name"] for row in results["rows"])
    if not operations:
        return teacher
    known = (name for name in rows if set(parse(name)) == set(operations))
    return next(known, written(operations))


def compose(results: Mapping[str, Any], budgets: Mapping[str, Budget]) -> None:
    """Nothing; shows a menu of budgets, a menu for each operation, and below the verdict.

    The amounts to choose are those that some pipeline of the run has. Its twin for pages without a
    kernel is `lab_figures.front_figure`.
    """
    pipelines = [parse(row["name"]) for row in results["rows"][1:]]
    chosen = ipywidgets.Dropdown(options=list(budgets), description="budget")
    menus = [
        ipywidgets.Dropdown(options=[(LEFT_OUT, None), *options], description=title)
        for title, options in _menus(pipelines).items()
    ]
    words = ipywidgets.HTML()

    def draw(_: object = None) -> None:
        budget = budgets[chosen.value]
        line = composed([menu.value for menu in menus if menu.value], results)
        text = f"{chosen.value}: {budget}\n\n{verdict(line, results, budget)}"
        words.value = f'<pre style="line-height:1.5">{escape(text)}</pre>'

    for control in (chosen, *menus):
        control.observe(draw, names="value")
    draw()
    display(
        Live("Menus to compose a pipeline. They need a running kernel.", [chosen, *menus, words])
    )


def _menus(pipelines: Sequence[Sequence[Operation]]) -> dict[str, list[tuple[str, Operation]]]:
    """For each kind of operation those that occur, as (words, operation), smallest amount first."""
    found = sorted(
        {operation for operations in pipelines for operation in operations},
        key=lambda operation: (operation.amount or 0, operation.verb),
    )
    kinds = {verb: (verb,) for verb in VERBS} | {"numbers": tuple(NUMBERS)}
    menus = {
        title: [(str(one), one) for one in found if one.verb in verbs]
        for title, verbs in kinds.items()
    }
    return {title: options for title, options in menus.items() if options}


def _canonical(name: str) -> str:
    """The line of a pipeline, written as the course writes it; what is none stays as it is."""
    try:
        return written(parse(name))
    except DataError:
        return name.strip()


def _distance(one: Sequence[Operation], other: Sequence[Operation]) -> int:
    """How many operations only one of them has; another amount counts less, the order nothing."""
    verbs = ({operation.verb for operation in operations} for operations in (one, other))
    return len(set(one) ^ set(other)) + len(set.symmetric_difference(*verbs))


def _limits(row: Row, teacher: Row, budget: Budget) -> tuple[Limit, ...]:
    # 75 % - 74 % is not quite one point in floating point
    lost = round(100 * (teacher["accuracy"] - row["accuracy"]), 6)
    points = f"{_short(lost)} points lost" if lost > 0 else f"{_short(-lost)} points gained"
    return (
        _limit(row["size_mb"], budget.mb, "{} MB", "fits in {} MB"),
        _limit(row["latency_ms_p50"], budget.ms, "{} ms", "fits in {} ms"),
        _limit(lost, budget.points, points if lost else "no points lost", "{} may be lost"),
    )


def _limit(value: float, limit: float, words: str, within: str) -> Limit:
    """The limit; `words` say what there is, `within` what is allowed, with {} for the number."""
    words = words.format(_short(value))
    if value <= limit:
        return Limit(True, f"{words}: {within.format(_short(limit))}")
    return Limit(False, f"{words}: {_short(value - limit)} too many")


def _smaller(row: Row, rows: Sequence[Row], budget: Budget) -> str:
    """The pipelines that keep the whole budget and are smaller than this one, in words."""
    fitting = [
        other for other in rows if all(limit.holds for limit in _limits(other, rows[0], budget))
    ]
    if not fitting:
        return "Nothing in this run keeps all three limits."
    smaller = sorted((other["size_mb"], other["name"]) for other in fitting)
    smaller = [f"{name} ({_short(mb)} MB)" for mb, name in smaller if mb < row["size_mb"]]
    return "\n  ".join(["Smaller, and within all limits:", *smaller[:NEAR]]) if smaller else ""


def _short(number: float) -> str:
    """A number with three digits, or all of those before the point."""
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"
