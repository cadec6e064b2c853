"""Progress: a page that says what is solved in each notebook, and what is next."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

import course_utils
from course_utils.classroom.checks import exercises
from course_utils.classroom.display import put
from course_utils.classroom.plots import COLOURS
from course_utils.classroom.progress_file import states
from course_utils.classroom.quiz import questions

HEADINGS = ("notebook", "exercises", "questions", "still open")
WIDTH = 80  # of the page as text
LEFT = 'style="text-align:left"'


@dataclass(frozen=True)
class Task:
    """An exercise or a question, and how far the learner is with it."""

    notebook: str  # its number
    kind: str  # "exercise" or "question"
    name: str
    state: str | None

    @property
    def solved(self) -> bool:
        return self.state == "right"

    @property
    def call(self) -> str:
        """How the cell begins that checks it, or asks."""
        return f"{'check' if self.kind == 'exercise' else 'quiz'}.{self.name}("


def tasks() -> list[Task]:
    """Every exercise and question: notebook by notebook, as they stand there."""
    known = states()
    found = [
        Task(one.notebook, "exercise", one.name, known.get(one.name))
        for one in exercises().values()
    ]
    for notebook, group in questions().items():
        found += [
            Task(notebook, "question", one.name, known.get(one.key)) for one in group.values()
        ]
    texts = {number: _text(number) for number in {task.notebook for task in found}}
    return sorted(found, key=lambda task: (task.notebook, texts[task.notebook].find(task.call)))


def progress() -> None:
    """Nothing; shows what is solved in each notebook, and what is next."""
    found = tasks()
    put({"text/html": as_html(found), "text/plain": as_text(found)})


def as_text(found: Sequence[Task]) -> str:
    """The page as a table for a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading, max_width=24 if heading == HEADINGS[0] else None)
    for number, group in _by_notebook(found):
        table.add_row(_title(number), *_counts(group), _open(group))
    table.add_section()
    table.add_row("all", *_counts(found))
    # In a notebook rich would display the table itself.
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, force_jupyter=False)
    console.print(table)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines() if line.strip()]
    after = _next(found)
    path = after and _path(after.notebook)
    return "\n".join([*lines, "", _words(after) + (f"\n      {path}" if path else "")])


def as_html(found: Sequence[Task]) -> str:
    """The page as HTML: what is next with a link, and a row with a bar for each notebook."""
    heads = "".join(f'<th scope="col" {LEFT}>{heading}</th>' for heading in HEADINGS)
    rows = []
    for number, group in _by_notebook(found):
        cells = (*_counts(group), escape(_open(group)))
        rows.append(
            f'<tr><th scope="row" {LEFT}>{_link(number, _title(number))}{_bar(group)}</th>'
            + "".join(f"<td {LEFT}>{cell}</td>" for cell in cells)
            + "</tr>"
        )
    cells = "".join(f"<td {LEFT}>{cell}</td>" for cell in (*_counts(found), ""))
    rows.append(f'<tr><th scope="row" {LEFT}>all{_bar(found)}</th>{cells}</tr>')
    after = _next(found)
    words = _words(after) if after is None else _link(after.notebook, _words(after))
    return (
        f"<p><strong>{words}</strong></p>"
        f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _by_notebook(found: Sequence[Task]) -> list[tuple[str, list[Task]]]:
    groups = groupby(found, key=lambda task: task.notebook)
    return [(number, list(group)) for number, group in groups]


def _counts(group: Sequence[Task]) -> list[str]:
    """How many of the exercises, and how many of the questions, are solved: "1/7"."""
    kinds = ([t.solved for t in group if t.kind == kind] for kind in ("exercise", "question"))
    return [f"{sum(solved)}/{len(solved)}" for solved in kinds]


def _open(group: Sequence[Task]) -> str:
    """What is still to be solved, by name, if the notebook has been begun."""
    left = [task for task in group if not task.solved]
    if not left:
        return "✓ nothing"
    if all(task.state is None for task in group):
        return "not begun"
    return ", ".join(f"{task.name}{' (tried)' * (task.state is not None)}" for task in left)


def _next(found: Sequence[Task]) -> Task | None:
    return next((task for task in found if not task.solved), None)


def _words(task: Task | None) -> str:
    if task is None:
        return "Everything is solved."
    return f"Next: notebook {task.notebook}, {task.kind} {task.name}"


def _path(number: str) -> str | None:
    """Where the notebook is, from here: beside us, in `notebooks`, or where the course lies."""
    folders = (Path(), Path("notebooks"), Path(course_utils.__file__).parents[1] / "notebooks")
    found = (path for folder in folders for path in sorted(folder.glob(f"{number}_*.ipynb")))
    first = next(found, None)
    return first and os.path.relpath(first)


def _text(number: str) -> str:
    """The notebook's file as it is; nothing where the notebooks are not at hand."""
    path = _path(number)
    return Path(path).read_text(encoding="utf-8", errors="replace") if path else ""


def _title(number: str) -> str:
    """The words of its file's name, or the number alone where the notebooks are not at hand."""
    path = _path(number)
    return Path(path).stem.replace("_", " ") if path else number


def _link(number: str, words: str) -> str:
    path = _path(number)
    return (
        f'<a href="{quote(Path(path).as_posix())}">{escape(words)}</a>' if path else escape(words)
    )


def _bar(group: Sequence[Task]) -> str:
    """A bar as long as the share that is solved; the numbers beside it say the same."""
    share = sum(task.solved for task in group) / len(group)
    return (
        f'<div style="width:10em;height:5px;background:#E0E0E0"><div style="width:{share:.0%};'
        f'height:5px;background:{COLOURS["blue"]}"></div></div>'
    )
