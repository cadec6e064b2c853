"""docs/adding_a_chapter.md is followed to the letter, in a copy of the course."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "adding_a_chapter.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w/.]+)`:\n\n```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The course's code and tools in another place, with no notebook but the one to add."""
    root = tmp_path_factory.mktemp("copy")
    for name in (
        "course_utils",
        "tools",
        "data",
        "docs",
        "pyproject.toml",
        "tests/classroom",
        "tests/looks.py",
    ):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, root / name)
    (root / "notebooks" / "source").mkdir(parents=True)
    return root


def python(root, *arguments):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tools'}"},
        capture_output=True,
        text=True,
    )


def test_the_page_names_the_files_of_a_chapter():
    assert [*FILES] == [
        "course_utils/classroom/exercises/nb99.py",
        "course_utils/classroom/quizzes/nb99.py",
        "notebooks/source/99_a_chapter_to_try.py",
    ]


def test_a_chapter_is_added_checked_and_taken_away(copy):
    for name, text in FILES.items():
        (copy / name).write_text(text, encoding="utf-8")

    built = python(copy, "tools/build_notebooks.py", "99", "--execute")
    assert built.returncode == 0, built.stderr
    checked = python(copy, "tools/build_notebooks.py", "--check")
    assert checked.stdout == "1 notebooks are as they should be.\n", checked.stdout
    notebook = nbformat.read(copy / "notebooks" / "99_a_chapter_to_try.ipynb", as_version=4)
    printed = [o.text for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert "5.1 times as small\n" in printed
    assert any("not attempted yet" in text for text in printed)

    options = ["-q", "-p", "no:cacheprovider", "-c", "pyproject.toml", "--rootdir", "."]
    tests = "tests/classroom/test_exercises.py"
    tested = python(copy, "-m", "pytest", *options, tests, "-k", "times_as_small")
    assert tested.returncode == 0, tested.stdout
    assert re.search(r"^1\d passed", tested.stdout, re.MULTILINE), tested.stdout

    for name in FILES:
        (copy / name).unlink()
    orphan = python(copy, "tools/build_notebooks.py", "--check")
    assert orphan.returncode == 1
    assert "99_a_chapter_to_try.ipynb: it has no source in notebooks/source" in orphan.stdout
    (copy / "notebooks" / "99_a_chapter_to_try.ipynb").unlink()
    assert python(copy, "tools/build_notebooks.py", "--check").returncode == 0
    names = "from course_utils.classroom.checks import exercises; print(*exercises())"
    left = python(copy, "-c", names).stdout.split()
    assert "agreement" in left
    assert "times_as_small" not in left
