"""`make test` adds up its parts, and one that fails fails all."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GOOD = "def test_a(): pass\n\ndef test_b(): pass\n"
BAD = """import pytest

@pytest.fixture
def broken():
    raise OSError

def test_a(): assert not 1
def test_b(broken): pass
def test_c(): pytest.skip("why")
"""


@pytest.fixture
def tests(tmp_path, monkeypatch):
    """The tool, in a folder of its own; what it runs is set by a test."""
    spec = importlib.util.spec_from_file_location("run_tests", ROOT / "tools" / "run_tests.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "REPORTS", tmp_path / "reports")
    for name, text in {"test_good.py": GOOD, "test_bad.py": BAD}.items():
        (tmp_path / name).write_text(text)
    return module


def test_the_counts_of_all_parts_are_one_line(tests, monkeypatch, capfd):
    side_by_side = ["test_bad.py", "-n", "2"]
    monkeypatch.setattr(tests, "PARTS", {"first": side_by_side, "second": ["test_good.py"]})
    assert tests.main() == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines[-1].startswith("All tests: 2 passed, 1 failed, 1 errors, 1 skipped, in ")
    assert any(line.startswith("FAILED test_bad.py::test_a") for line in lines)


def test_a_part_that_could_not_begin_is_a_failure(tests, monkeypatch, capfd):
    monkeypatch.setattr(tests, "PARTS", {"good": ["test_good.py"], "none": ["absent.py"]})
    assert tests.main() not in (0, 1)
    assert "All tests: 2 passed, 0 failed" in capfd.readouterr().out


def test_every_test_and_every_notebook_is_in_one_part(tests):
    units, notebooks = tests.PARTS.values()
    assert units[:3] == ["tests", "-m", "not browser"]
    assert notebooks[:3] == ["notebooks", "tests/browser", "--nbval"]
    marked = "pytestmark = " + "pytest.mark.browser"
    files = {path for path in (ROOT / "tests").rglob("test_*.py") if marked in path.read_text()}
    assert files == set((ROOT / "tests" / "browser").glob("test_*.py"))
