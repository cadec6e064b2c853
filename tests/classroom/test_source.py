"""show_source shows what runs, and where it stands in the package."""

import functools
import json

import numpy as np
import pytest

from course_utils import errors
from course_utils.classroom import show_source
from course_utils.classroom.source import fenced
from course_utils.errors import CourseError
from course_utils.files import new_folder, sha256


def test_in_a_notebook_the_code_is_a_markdown_block(displayed, capsys):
    assert show_source(sha256) is None
    [output] = displayed
    place, _, code = output["data"]["text/markdown"].partition("\n\n")
    assert place == "`course_utils/files.py`"
    assert code.startswith("```python\ndef sha256(path")
    assert code.endswith("\n```")
    assert capsys.readouterr().out == ""
    json.dumps(output["data"])  # what a kernel can send


def test_outside_of_a_notebook_it_is_printed_under_the_name_of_its_file(capsys):
    show_source(sha256)
    head, _, code = capsys.readouterr().out.partition("\n")
    assert head == "# course_utils/files.py"
    assert code.startswith("def sha256(path: str | Path) -> str:")
    assert code.rstrip().endswith("hexdigest()")


@pytest.mark.parametrize(
    ("thing", "first"),
    [
        (CourseError, "class CourseError(Exception):"),
        (CourseError._render_traceback_, "def _render_traceback_(self) -> list[str]:"),
        (new_folder, "@contextlib.contextmanager"),
        (errors, '"""Errors a person can act on'),
        (functools.wraps(sha256)(lambda path: None), "def sha256"),
    ],
)
def test_classes_methods_modules_and_wrapped_functions(thing, first, capsys):
    show_source(thing)
    assert capsys.readouterr().out.splitlines()[1].startswith(first)


@pytest.mark.parametrize("thing", [len, 3, "text", np.float64])
def test_what_has_no_source_is_an_error_with_advice(thing):
    with pytest.raises(CourseError, match="no Python source"):
        show_source(thing)


def test_a_fence_is_longer_than_the_backticks_inside():
    assert fenced("a = '````'") == "`````python\na = '````'\n`````"
