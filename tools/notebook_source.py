"""From a notebook's source (jupytext percent format) to the notebook a learner opens.

Two rules make an exercise of its solution: a cell tagged `solution` is folded under "Answer", and
in any other code cell everything from a line `# solution` on becomes `...  # your code here`.

Two things that no source holds are added: under the title a badge that opens the notebook on Google
Colab, and above all code the cell, tagged `colab`, that installs the course there.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import badges
import jupytext
import nbformat
from nbformat import NotebookNode

from course_utils.classroom.source import fenced

METADATA = {
    "kernelspec": {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    },
    "language_info": {"name": "python"},
}
KEPT_CELL_METADATA = ("tags", "jupyter")
MARKER = re.compile(r"^([ \t]*)# solution[ \t]*$.*", flags=re.MULTILINE | re.DOTALL)


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def written(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells that stand in the source: all but the one for Colab."""
    return [c for c in notebook.cells if c.cell_type == "code" and "colab" not in tags(c)]


def read_source(
    path: Path, *, solutions: bool = False, repository: str | None = None
) -> NotebookNode:
    """The notebook of a source file, not executed; with `solutions`, the answers are live code.

    Colab gets the course from `repository`, by default that of the setting in pyproject.toml.
    Cell ids are made of the notebook's name and the cell's content: an unchanged cell keeps its id.
    """
    parsed = jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent")
    notebook = nbformat.v4.new_notebook(metadata=METADATA)
    seen: dict[str, int] = {}
    for cell in parsed.cells:
        if not solutions:
            cell = _for_learners(cell)
        new = (
            nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        )
        metadata = {key: cell.metadata[key] for key in KEPT_CELL_METADATA if key in cell.metadata}
        if "corpus-text" in metadata.get("tags", []):  # its output is not kept, so not compared
            metadata["tags"] = list(dict.fromkeys([*metadata["tags"], "nbval-ignore-output"]))
        seen[cell.source] = seen.get(cell.source, 0) + 1
        key = f"{path.stem}\n{seen[cell.source]}\n{cell.source}"
        digest = hashlib.sha256(key.encode()).hexdigest()
        notebook.cells.append(new(cell.source, metadata=metadata, id=digest[:12]))
    _open_on_colab(notebook, path.stem, repository or badges.repository())
    return notebook


def _open_on_colab(notebook: NotebookNode, stem: str, repository: str) -> None:
    """Nothing; the notebook has its badge and its first cell."""
    kinds = [cell.cell_type for cell in notebook.cells]
    if kinds[:1] == ["markdown"]:
        badges.with_badge(notebook.cells[0], stem, repository)
    if "code" in kinds:
        notebook.cells.insert(kinds.index("code"), badges.first_cell(repository))


def _for_learners(cell: NotebookNode) -> NotebookNode:
    """The cell with its solution folded away or left for the learner to write."""
    if "solution" in tags(cell):
        answer = cell.source if cell.cell_type == "markdown" else fenced(cell.source)
        folded = f"<details><summary>Answer</summary>\n\n{answer}\n\n</details>"
        return nbformat.v4.new_markdown_cell(folded, metadata=cell.metadata)
    if cell.cell_type == "code":
        cell.source = MARKER.sub(r"\1...  # your code here", cell.source)
    return cell
