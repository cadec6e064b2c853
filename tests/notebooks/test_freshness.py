"""A notebook is run again when something that it runs has changed, and only then."""

import json
import os
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import build_notebooks  # noqa: E402 - it lives in tools/, which is no package
import freshness  # noqa: E402
import timings  # noqa: E402

SOURCE = """# %% [markdown]
# # A title

# %% tags=["setup"]
from course_utils import classroom
from course_utils.measure.speed import speed
print("ran")
"""


@pytest.fixture
def course(tmp_path):
    """A small course with one notebook and a library of its own beside it."""
    for path, text in {
        "notebooks/source/03_small.py": SOURCE,
        "course_utils/__init__.py": "",
        "course_utils/errors.py": "",
        "course_utils/classroom/__init__.py": "from course_utils.classroom.checks import check\n",
        "course_utils/classroom/checks.py": "check = 1\n",
        "course_utils/classroom/exercises/nb03.py": "",
        "course_utils/classroom/exercises/nb04.py": "",
        "course_utils/measure/__init__.py": "",
        "course_utils/measure/speed.py": (
            "def speed():\n    from course_utils.errors import CourseError\n"
        ),
        "course_utils/measure/limits/known.json": "{}",
        "course_utils/ship.py": "",
        "data/probes/test.tsv": "text\tlabel\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    return tmp_path


def source(root):
    return root / "notebooks" / "source" / "03_small.py"


def stored(root):
    return nbformat.read(root / "notebooks" / "03_small.ipynb", as_version=4)


def test_what_a_notebook_imports_directly_or_by_way_of_another(course):
    found = freshness.imported(source(course), course)
    assert [file.relative_to(course / "course_utils").as_posix() for file in found] == [
        "__init__.py",
        "classroom/__init__.py",
        "classroom/checks.py",
        "classroom/exercises/nb03.py",  # by its number: checks find it when they are called
        "errors.py",  # imported inside a function
        "measure/__init__.py",
        "measure/speed.py",
    ]


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("course_utils/classroom/checks.py", True),
        ("course_utils/errors.py", True),
        ("course_utils/classroom/exercises/nb03.py", True),
        ("course_utils/measure/limits/known.json", True),
        ("data/probes/test.tsv", True),
        ("course_utils/classroom/exercises/nb04.py", False),
        ("course_utils/ship.py", False),
    ],
)
def test_the_fingerprint_is_over_what_runs(course, path, counts):
    before = freshness.fingerprint(source(course), course)
    with open(course / path, "a", encoding="utf-8") as file:
        file.write(" ")
    assert (freshness.fingerprint(source(course), course) != before) == counts


@pytest.mark.parametrize(
    ("old", "new", "counts"), [("A title", "A better title", False), ("ran", "walked", True)]
)
def test_code_counts_and_prose_does_not(course, old, new, counts):
    before = freshness.fingerprint(source(course), course)
    source(course).write_text(SOURCE.replace(old, new), encoding="utf-8")
    assert (freshness.fingerprint(source(course), course) != before) == counts


def test_another_version_of_a_dependency_counts(course, monkeypatch):
    before = freshness.fingerprint(source(course), course)
    newer = {**freshness.versions(), "torch": "99.0"}
    monkeypatch.setattr(freshness, "versions", lambda: newer)
    assert freshness.fingerprint(source(course), course) != before


def test_the_versions_are_those_of_the_direct_dependencies():
    found = freshness.versions()
    assert {"torch", "transformers", "numpy", "onnxruntime"} <= found.keys()
    assert "jinja2" not in {name.lower() for name in found}  # comes with others
    assert all("+" not in version for version in found.values())


class TestRefresh:
    @pytest.fixture
    def ran(self, course, monkeypatch):
        """`ran(…)` builds with these arguments and returns the names of notebooks that were run."""
        names = []

        def execute(notebook, *, name, **rest):
            names.append(name)
            for k, cell in enumerate([c for c in notebook.cells if c.cell_type == "code"], 1):
                cell.execution_count = k

        monkeypatch.setattr(build_notebooks, "execute", execute)

        def run(*arguments):
            names.clear()
            assert build_notebooks.main([*arguments], root=course) == 0
            return list(names)

        return run

    def test_only_what_changed_is_run(self, course, ran):
        assert ran("--refresh") == ["03_small"]
        assert ran("--refresh") == []
        source(course).write_text(SOURCE.replace("A title", "Another"), encoding="utf-8")
        assert ran("--refresh") == []
        assert stored(course).cells[0].source.startswith("# Another\n")  # built all the same
        (course / "course_utils/errors.py").write_text("new = 1\n", encoding="utf-8")
        assert ran("--refresh") == ["03_small"]
        assert ran("--execute") == ["03_small"]  # asked for by name

    @pytest.mark.parametrize("damage", [None, "torn"])
    def test_a_notebook_that_is_missing_or_torn_is_run(self, course, ran, damage):
        ran("--refresh")
        target = course / "notebooks" / "03_small.ipynb"
        target.unlink()
        if damage:
            target.write_text(damage, encoding="utf-8")
        assert ran("--refresh") == ["03_small"]

    def test_the_page_says_when_and_with_what(self, course, ran):
        ran("--refresh")
        kept, last = stored(course).metadata["course"], stored(course).cells[-1]
        assert last.cell_type == "markdown"
        today = datetime.now(UTC).date().isoformat()
        assert re.search(rf"Last verified on {today}: .* Python \d+\.\d+.*, torch \d", last.source)
        assert kept["fingerprint"] == freshness.fingerprint(source(course), course)
        assert build_notebooks.main(["--check"], root=course) == 0

    def test_the_day_stays_when_nothing_was_run(self, course, ran):
        ran("--refresh")
        book = stored(course)
        book.metadata["course"]["verified"] = "2020-02-02"
        nbformat.write(book, course / "notebooks" / "03_small.ipynb")
        ran("--refresh")
        assert "Last verified on 2020-02-02" in stored(course).cells[-1].source

    def test_words_that_do_not_fit_the_record_are_found(self, course, ran, capsys):
        ran("--refresh")
        book = stored(course)
        book.cells[-1].source = book.cells[-1].source.replace("20", "30", 1)
        nbformat.write(book, course / "notebooks" / "03_small.ipynb")
        assert build_notebooks.main(["--check"], root=course) == 1
        assert "it differs from its source" in capsys.readouterr().out


class TestTimings:
    def test_a_run_is_noted_under_its_profile(self, tmp_path, monkeypatch):
        monkeypatch.setenv("COURSE_PROFILE", "smoke")
        timings.keep(tmp_path, "03_small", timings.Usage(seconds=7.4, peak_mb=1234.5))
        monkeypatch.setenv("COURSE_PROFILE", "cpu")
        timings.keep(tmp_path, "03_small", timings.Usage(seconds=70.4, peak_mb=2345.6))
        timings.keep(tmp_path, "03_small", timings.Usage(seconds=60.4, peak_mb=2345.6))
        results = json.loads((tmp_path / timings.FILE).read_text(encoding="utf-8"))
        assert results["03_small"]["smoke"]["seconds"] == 7
        assert results["03_small"]["cpu"]["seconds"] == 60
        assert results["03_small"]["cpu"]["peak_mb"] == 2350
        assert results["03_small"]["cpu"]["machine"]

    def test_memory_is_that_of_the_processes_begun(self):
        import subprocess

        hold = "import time; held = bytearray(200_000_000); print(flush=True); time.sleep(30)"
        with timings.usage() as used:
            child = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE)
            child.stdout.readline()
            deadline = time.monotonic() + 20
            while used.peak_mb < 200 and time.monotonic() < deadline:
                time.sleep(timings.EVERY)
            child.kill()
            child.wait()
        assert 200 <= used.peak_mb < 400
        assert used.seconds > 0

    def test_nothing_is_noted_unless_asked(self, course):
        os.makedirs(course / "copies")
        assert build_notebooks.main(["--out", str(course / "copies")], root=course) == 0
        assert not (course / timings.FILE).exists()
