"""Builds notebooks/NN_name.ipynb from notebooks/source/NN_name.py, runs them and checks them.

    python tools/build_notebooks.py --refresh              run again what would run differently
    python tools/build_notebooks.py --execute              all notebooks, with outputs
    python tools/build_notebooks.py 00 --execute           one of them
    python tools/build_notebooks.py --execute --out DIR    executed copies in DIR
    python tools/build_notebooks.py --execute --timed      also note time and memory of each run
    python tools/build_notebooks.py --solutions --out DIR  the answered variants
    python tools/build_notebooks.py --check                what is wrong with the stored ones

Without --execute, the outputs of a notebook stay when none of its code has changed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import nbformat
import timings
from choosing import choose
from freshness import RECORD, is_fresh, record, with_record
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from notebook_rules import problems, tidy
from notebook_source import read_source, written
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from course_utils.errors import CourseError
from course_utils.files import write_text

ROOT = Path(__file__).resolve().parents[1]


class _ThisPython(KernelSpecManager):
    """Every kernel name means this interpreter: a `python3` kernel of the user may be another."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(**get_kernel_dict())


class _Kernel(AsyncKernelManager):
    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return _ThisPython(parent=self)

    def _transport_encryption_default(self) -> str:
        return "auto"  # otherwise new kernels write a warning into the progress line


def execute(
    notebook: NotebookNode,
    *,
    name: str,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    on_cell: Callable[[int], None] = lambda k: None,
) -> NotebookNode:
    """The notebook with its outputs, run from top to bottom in `folder` by this interpreter.

    `on_cell(k)` is called before the k-th code cell, counted from 1. Raises `CourseError` with the
    cell's number, source and error when a cell fails or the kernel dies.
    """
    code = [k for k, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    reached = 1

    def before(cell: NotebookNode, cell_index: int) -> None:
        nonlocal reached
        reached = code.index(cell_index) + 1
        on_cell(reached)

    client = NotebookClient(
        notebook,
        kernel_manager_class=_Kernel,
        resources={"metadata": {"path": str(folder)}},
        timeout=None,
        startup_timeout=300,
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        on_cell_execute=before,
    )
    try:
        client.execute(env={**os.environ, **(environment or {})})
        return notebook
    except CellExecutionError:
        failed = notebook.cells[code[reached - 1]]
        error = next(output for output in failed.outputs if output.output_type == "error")
        story = _plain("\n".join(error.traceback))
    except (DeadKernelError, AssertionError):  # nbclient asserts in vain after Ctrl-C
        failed = notebook.cells[code[reached - 1]]
        story = "The kernel is gone: it was interrupted, or it died, mostly for want of memory."
    numbered = "\n".join(f"{k:4} | {line}" for k, line in enumerate(failed.source.splitlines(), 1))
    raise CourseError(
        f"{name}: code cell {reached} of {len(code)} failed.\n\n{numbered}\n\n{story}\n",
        do="Correct the source and build again; the notebook on disk is as it was.",
    )


def build(
    source: Path,
    out: Path,
    *,
    run: bool,
    solutions: bool,
    timed: bool,
    say: Callable[[str, int, int], None],
) -> Path:
    """The path of the notebook written into `out`; nothing is written when a cell fails.

    With `timed`, docs/results remembers the time and the memory of the run. `say(name, k, n)` is
    called as the k-th of n code cells begins.
    """
    notebook, target = read_source(source, solutions=solutions), out / f"{source.stem}.ipynb"
    count = sum(cell.cell_type == "code" for cell in notebook.cells)
    if run:
        kept = record(source, source.parents[2])
        with tempfile.TemporaryDirectory() as folder, timings.usage() as used:
            execute(
                notebook,
                name=source.stem,
                folder=source.parents[1],
                # The author's run, and the answers in it, are not the learner's progress.
                environment={"COURSE_PROGRESS": str(Path(folder) / "progress.json")},
                on_cell=lambda k: say(source.stem, k, count),
            )
        if timed:
            timings.keep(source.parents[2], source.stem, used)
    else:
        kept = _keep_outputs(notebook, target)
    tidy(notebook, read_source(source, solutions=solutions))
    with_record(notebook, kept)
    nbformat.validate(notebook)
    return write_text(target, nbformat.writes(notebook).rstrip("\n") + "\n")


def _keep_outputs(notebook: NotebookNode, target: Path) -> dict | None:
    """Carries the stored outputs, and the record of their run, over if their code is the same."""
    try:
        stored = nbformat.read(target, as_version=4)
    except (FileNotFoundError, ValueError):  # there is none, or it is not a notebook
        return None
    new, old = (
        [cell for cell in book.cells if cell.cell_type == "code"] for book in (notebook, stored)
    )
    # The cell for Colab changes with the repository's address, and does nothing here.
    same = [c.source for c in written(notebook)] == [c.source for c in written(stored)]
    if not same or len(new) != len(old):
        return None
    for cell, before in zip(new, old, strict=True):
        cell.outputs, cell.execution_count = before.outputs, before.execution_count
    return stored.metadata.get(RECORD)


def select(names: Sequence[str], root: Path) -> list[Path]:
    """The sources of these notebooks; see `choose`."""
    return choose(names, sorted((root / "notebooks" / "source").glob("[0-9]*.py")), kind="notebook")


def check(sources: Sequence[Path], root: Path) -> list[str]:
    """What is wrong with the stored notebooks of these sources, and notebooks without a source."""
    found = [
        f"{source.stem}.ipynb: {problem}"
        for source in sources
        for problem in problems(source, root / "notebooks" / f"{source.stem}.ipynb")
    ]
    all_sources = {path.stem for path in select([], root)}
    orphans = [p.name for p in (root / "notebooks").glob("*.ipynb") if p.stem not in all_sources]
    return found + [f"{name}: it has no source in notebooks/source" for name in sorted(orphans)]


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """The exit code: 0, or 1 when a cell failed or a check found something."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="number or name of a notebook (default: all)")
    parser.add_argument("--execute", action="store_true", help="run them and keep the outputs")
    parser.add_argument("--refresh", action="store_true", help="run those that changed since")
    parser.add_argument("--solutions", action="store_true", help="answered variants, executed")
    parser.add_argument("--out", type=Path, help="folder to write to (default: notebooks/)")
    parser.add_argument("--timed", action="store_true", help="note time and memory in docs/results")
    parser.add_argument("--check", action="store_true", help="build nothing, say what is wrong")
    options = parser.parse_args(arguments)
    if options.solutions and options.out is None:
        parser.error("--solutions needs --out: answered notebooks must not replace the others")
    try:
        sources = select(options.names, root)
        if options.check:
            found = check(sources, root)
            print("\n".join(found) or f"{len(sources)} notebooks are as they should be.")
            return 1 if found else 0
        with progress_line() as say:
            for source in sources:
                target = options.out or root / "notebooks"
                stale = options.refresh and not is_fresh(
                    source, target / f"{source.stem}.ipynb", root
                )
                build(
                    source,
                    target,
                    run=options.execute or options.solutions or stale,
                    solutions=options.solutions,
                    timed=options.timed,
                    say=say,
                )
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def progress_line() -> Iterator[Callable[[str, int, int], None]]:
    """A function say(name, k, n): one moving line per notebook, or in a log one line per cell."""
    console, began, tasks = Console(), time.monotonic(), {}

    def log(name: str, k: int, n: int) -> None:
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        print(f"{name}  cell {k}/{n}  {minutes}:{seconds:02}", flush=True)

    if not console.is_terminal:
        yield log
        return
    columns = ("{task.description}", BarColumn(), "cell", MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:

        def move(name: str, k: int, n: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=n)
            progress.update(tasks[name], completed=k)

        yield move


def _plain(text: str) -> str:
    """`text` without the colours of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).strip()


if __name__ == "__main__":
    sys.exit(main())
