"""The library's own code, shown under a cell: what the reader sees is what runs."""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from course_utils.classroom.display import put
from course_utils.errors import CourseError


def show_source(obj: Any) -> None:
    """Nothing; shows the source of a function, class or module, under the name of its file.

    The code is displayed as Markdown, which every notebook colours in its own theme and which is
    the same text for every version of the tools. There is no line number: it would change a
    notebook with every edit above the function. Outside of a notebook the code is printed.
    Raises `CourseError` when `obj` has no Python source.
    """
    try:
        lines, _ = inspect.getsourcelines(obj)
    except (TypeError, OSError) as error:
        raise CourseError(
            f"There is no Python source to show for {obj!r}.",
            do="Give a function, a class or a module that is written in Python; "
            "for an object, its class: show_source(type(it)).",
        ) from error
    where = _file_of(obj)
    code = textwrap.dedent("".join(lines)).rstrip()
    put(
        {
            "text/plain": f"# {where}\n{code}",
            "text/markdown": f"`{where}`\n\n{fenced(code)}",
        }
    )


def fenced(code: str, language: str = "python") -> str:
    """`code` as a Markdown block whose fence is longer than any run of backticks inside."""
    ticks = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, ticks + 1)
    return f"{fence}{language}\n{code}\n{fence}"


def _file_of(obj: Any) -> str:
    """The file's name from its package on ("course_utils/files.py"): no absolute path."""
    module = inspect.getmodule(obj)
    if module is None or module.__name__ == "__main__":
        return "this notebook"
    package = sys.modules[module.__name__.partition(".")[0]]
    file = Path(inspect.getfile(module))
    if hasattr(package, "__path__"):
        return file.relative_to(Path(next(iter(package.__path__))).parent).as_posix()
    return file.name
