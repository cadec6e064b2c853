"""Whether a stored notebook still shows what its code does, without running it.

A notebook carries a record of its last run: the day, the versions, and a fingerprint of all that
ran. In it are its own code, every file of course_utils that it imports, directly or by way of
another, what the course brings along as data, and the versions of the direct dependencies. Prose
is not.
"""

from __future__ import annotations

import ast
import hashlib
import json
import platform
import tomllib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from notebook_source import read_source, written
from packaging.requirements import Requirement

PACKAGE = "course_utils"
PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
NAMED = ("Python", "torch", "transformers", "datasets", "onnxruntime", "ipywidgets")  # in words
RECORD = "course"  # the record's key in a notebook's metadata


def record(source: Path, root: Path) -> dict[str, object]:
    """What a notebook remembers of a run of `source` that begins now."""
    software = {"Python": platform.python_version(), **versions()}
    return {
        "verified": datetime.now(UTC).date().isoformat(),
        "with": {name: software[name] for name in NAMED if name in software},
        "fingerprint": fingerprint(source, root),
    }


def is_fresh(source: Path, stored: Path, root: Path) -> bool:
    """Whether running `source` anew would run what the stored notebook has run."""
    try:
        kept = nbformat.read(stored, as_version=4).metadata.get(RECORD, {})
    except (FileNotFoundError, ValueError):  # there is none, or it is not a notebook
        return False
    return kept.get("fingerprint") == fingerprint(source, root)


def with_record(notebook: NotebookNode, kept: dict | None) -> NotebookNode:
    """`notebook` with the record of its run in the metadata and, as its last cell, in words."""
    if kept is None:
        return notebook
    software = ", ".join(f"{name} {kept['with'][name]}" for name in NAMED if name in kept["with"])
    words = f"---\n\n*Last verified on {kept['verified']}: every cell ran with {software}.*"
    notebook.metadata[RECORD] = kept
    notebook.cells.append(nbformat.v4.new_markdown_cell(words, id="last-verified"))
    return notebook


def fingerprint(source: Path, root: Path) -> str:
    """The SHA-256 of everything that decides what the notebook of `source` prints."""
    code = [cell.source for cell in written(read_source(source))]
    digest = hashlib.sha256(json.dumps([code, versions()]).encode())
    files = imported(source, root)
    for file in [*files, *_data(files, root)]:
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """The version of each direct dependency that is installed, by name, in order."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["onnx"]]
    found = {}
    for name in sorted(Requirement(line).name for line in lines):
        try:
            found[name] = metadata.version(name).partition("+")[0]  # 2.13.0+cpu is 2.13.0
        except metadata.PackageNotFoundError:
            continue
    return found


def imported(source: Path, root: Path) -> list[Path]:
    """The files of course_utils behind a notebook, sorted: by import, or named after its number."""
    number = source.stem.partition("_")[0]
    waiting = [source, *(root / PACKAGE).rglob(f"nb{number}.py")]
    seen: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting += _imports(file, root)
    return sorted(seen - {source})


def _imports(file: Path, root: Path) -> Iterator[Path]:
    """The files of course_utils that this file names in an import, wherever in it that stands."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.partition(".")[0] == PACKAGE:
                yield from _files(name, root)


def _files(name: str, root: Path) -> Iterator[Path]:
    """The file of a module and those of the packages around it, as far as they exist."""
    parts = name.split(".")
    for k in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:k])
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if file.is_file():
                yield file


def _data(files: Sequence[Path], root: Path) -> list[Path]:
    """The tables that the course brings along, and what lies as JSON beside these modules."""
    rooms = {file.parent for file in files} - {root / PACKAGE}
    beside = {path for room in rooms for path in room.rglob("*.json")}
    return sorted([*(root / "data").rglob("*.tsv"), *beside])
