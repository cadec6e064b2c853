"""What slides take from a stored notebook: the figure, the printed text or the code of one cell.

The cell is named by a tag in the notebook's source: a slide's NAME is the tag `slide-NAME`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from notebook_source import tags

from course_utils.errors import CourseError

PREFIX = "slide-"
RUN = "Put the tag on the cell that does, or build the notebook with --execute."
COLOURS_OF_A_TERMINAL = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class StoredFigure:
    """A figure as the notebook holds it: its image in base64, and what it shows in words."""

    png: str
    alt: str


def find_notebook(number: str, folder: Path) -> Path:
    """The path of the stored notebook with this number ("03").

    Raises `CourseError` when there is none, listing those there are.
    """
    found = sorted(folder.glob(f"{number}_*.ipynb"))
    if not found:
        known = ", ".join(path.stem[:2] for path in sorted(folder.glob("[0-9]*.ipynb"))) or "none"
        raise CourseError(
            f"There is no notebook {number}.", where=folder, do=f"Use one of: {known}."
        )
    return found[0]


def tagged_cell(notebook: Path, name: str) -> NotebookNode:
    """The one code cell with the tag `slide-NAME`.

    Raises `CourseError` when no cell has it, or more than one, or the file is no notebook.
    """
    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except ValueError as error:
        raise CourseError(
            "The notebook cannot be read.",
            where=notebook.name,
            do=f"Build it again: `python tools/build_notebooks.py {notebook.stem[:2]} --execute`.",
        ) from error
    cells = [cell for cell in cells if cell.cell_type == "code"]
    found = [cell for cell in cells if PREFIX + name in tags(cell)]
    if len(found) == 1:
        return found[0]
    if found:
        raise CourseError(
            f"{len(found)} cells have the tag {PREFIX}{name}.",
            where=notebook.name,
            do="Keep it on one cell in notebooks/source and build the notebook again.",
        )
    known = [tag[len(PREFIX) :] for cell in cells for tag in tags(cell) if tag.startswith(PREFIX)]
    raise CourseError(
        f"No code cell has the tag {PREFIX}{name}; there are: {', '.join(known) or 'none'}.",
        where=notebook.name,
        do=f'Write `# %% tags=["{PREFIX}{name}"]` in notebooks/source/{notebook.stem}.py, then '
        f"`python tools/build_notebooks.py {notebook.stem[:2]}`.",
    )


def figure(notebook: Path, name: str) -> StoredFigure:
    """The last figure under the cell that is tagged `slide-NAME`.

    Raises `CourseError` when the cell shows none, or one without alternative text.
    """
    outputs = [o for o in tagged_cell(notebook, name).outputs if "image/png" in o.get("data", {})]
    if not outputs:
        raise CourseError(f"The cell {PREFIX}{name} shows no figure.", where=notebook.name, do=RUN)
    alt = outputs[-1].metadata.get("image/png", {}).get("alt", "")
    if not alt.strip():
        raise CourseError(
            f"The figure of the cell {PREFIX}{name} has no alternative text.",
            where=notebook.name,
            do="Show it with show(fig, alt=…).",
        )
    return StoredFigure("".join(outputs[-1].data["image/png"]).replace("\n", ""), alt)


def printed(notebook: Path, name: str) -> str:
    """The text under the cell that is tagged `slide-NAME`: what it printed and its value.

    Raises `CourseError` when there is none.
    """
    parts = []
    for output in tagged_cell(notebook, name).outputs:
        data = output.get("data", {})
        if output.output_type == "stream" and output.name == "stdout":
            parts.append(output.text)
        elif "text/plain" in data and "image/png" not in data:
            parts.append(data["text/plain"])
    text = COLOURS_OF_A_TERMINAL.sub("", "\n".join(part.rstrip() for part in parts)).rstrip()
    if not text:
        raise CourseError(f"The cell {PREFIX}{name} printed nothing.", where=notebook.name, do=RUN)
    return text


def code(notebook: Path, name: str) -> str:
    """The source of the cell that is tagged `slide-NAME`, as a learner sees it."""
    return tagged_cell(notebook, name).source.strip()
