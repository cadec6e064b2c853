"""What a stored notebook must satisfy; `build_notebooks.py --check` and the tests ask here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from freshness import RECORD, with_record
from nbformat import NotebookNode
from notebook_source import read_source, tags, written

MOST_BYTES = 1_000_000
LEAST_STRICT = 0.7  # the share of code cells whose output nbval compares
NOT_STRICT = {"nbval-ignore-output", "nbval-skip"}
WIDGET = "application/vnd.jupyter.widget-view+json"
IMAGES = ("image/png", "image/jpeg", "image/svg+xml")
BAR = re.compile(r":\s+0%\|")  # what tqdm's widget leaves for a page without a kernel
NO_ALT = re.compile(r"!\[\s*\]\(|<img(?![^>]*\balt\s*=\s*[\"']?[^\s\"'>])[^>]*>", re.IGNORECASE)


def tidy(notebook: NotebookNode, built: NotebookNode) -> NotebookNode:
    """`notebook` after its run, without what changes from run to run or has no place in a file.

    Metadata is again that of `built`; a cell tagged `corpus-text` keeps no output; a widget, which
    cannot live in a file, leaves the other views of its output, or nothing; a progress bar, which
    would stand at 0 % for ever, leaves nothing.
    """
    notebook.metadata = built.metadata
    for cell, original in zip(notebook.cells, built.cells, strict=True):
        cell.metadata = original.metadata
        if cell.cell_type == "code":
            kept = [] if "corpus-text" in tags(cell) else map(_without_widget, cell.outputs)
            cell.outputs = [output for output in kept if output is not None]
    return notebook


def _without_widget(output: NotebookNode) -> NotebookNode | None:
    data = output.get("data", {})
    had = data.pop(WIDGET, None)
    nothing = not data or BAR.search(data.get("text/plain", ""))
    return None if had is not None and nothing else output


def problems(source: Path, stored: Path) -> list[str]:
    """Everything that is wrong with a stored notebook, one sentence each."""
    if not stored.exists():
        return ["it has not been built"]
    try:
        notebook = nbformat.read(stored, as_version=4)
    except ValueError:
        return ["it cannot be read as a notebook: build it again"]
    found = []
    kept = notebook.metadata.get(RECORD)
    if _but_outputs(notebook) != _but_outputs(with_record(read_source(source), kept)):
        found.append(f"it differs from its source {source.name}: build it again")
    if kept is None:
        found.append("it does not say when it was last verified: run it (make notebooks)")
    if stored.stat().st_size > MOST_BYTES:
        found.append(f"it has {stored.stat().st_size:,} bytes; {MOST_BYTES:,} are allowed")
    if "widgets" in notebook.metadata:
        found.append("metadata.widgets is present; GitHub does not show such a notebook")
    return [*found, *_problems_of_cells(notebook)]


def _problems_of_cells(notebook: NotebookNode) -> Iterator[str]:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    own = written(notebook)
    if own and "setup" not in tags(own[0]):
        yield "its first code cell is not tagged `setup`"
    strict = [cell for cell in own if not NOT_STRICT.intersection(tags(cell))]
    if len(strict) < LEAST_STRICT * len(own):
        yield (
            f"only {len(strict)} of {len(own)} code cells are compared strictly; "
            f"{LEAST_STRICT:.0%} is the least"
        )
    for k, cell in enumerate(code, 1):
        if cell.execution_count is None:
            yield f"code cell {k} has not been run, its output is missing"
        if any(_lacks_alt(output) for output in cell.outputs):
            yield f"code cell {k} shows a figure without alt text: use show(fig, alt=…)"
    for k, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "markdown" and NO_ALT.search(cell.source):
            yield f"cell {k} (text) holds an image without alt text"


def _lacks_alt(output: NotebookNode) -> bool:
    """Whether an image of this output says nothing to those who cannot see it."""
    data, metadata = output.get("data", {}), output.get("metadata", {})
    silent = [kind for kind in IMAGES if kind in data and not metadata.get(kind, {}).get("alt")]
    return bool(silent) or bool(NO_ALT.search(data.get("text/html", "")))


def _but_outputs(notebook: NotebookNode) -> dict[str, Any]:
    """What of a notebook comes from its source."""
    cells = [
        (c.id, c.cell_type, c.source, dict(c.metadata), c.get("attachments"))
        for c in notebook.cells
    ]
    metadata = {key: value for key, value in notebook.metadata.items() if key != "widgets"}
    return {"metadata": metadata, "cells": cells}
