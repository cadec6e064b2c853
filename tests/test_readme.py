"""The README keeps its promises: links lead somewhere, commands exist, numbers were measured."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
from typer.main import get_command

from course_utils.cli import app
from course_utils.errors import CourseError

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_link_within_the_repository_leads_somewhere():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)\)", README)
    assert len(links) >= 4
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_make_target_named_exists():
    named = set(re.findall(r"make ([a-z-]+)(?![\w.])", README.replace("`make`", "")))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {"course", "test", "lab"} <= named <= targets


def test_every_command_and_option_named_exists():
    commands = get_command(app).commands
    names = "doctor|run|distill-mlm|distill|predict|bench|fetch|bundle|progress"
    for line in re.findall(rf"course ((?:{names})[^`\n]*)", README):
        name = line.split()[0]
        options = {word for param in commands[name].params for word in param.opts}
        assert set(re.findall(r"--[a-z-]+", line)) <= options


def test_the_table_of_options_is_that_of_the_command():
    table = README.partition("| option of `course distill`")[2].partition("\n\n")[0]
    options = {word for p in get_command(app).commands["distill"].params for word in p.opts}
    named = set(re.findall(r"--[a-z-]+", table.partition("\n")[2].partition("\n")[2]))
    assert len(named) >= 8
    assert named <= options


def test_the_syllabus_names_every_notebook_and_no_other():
    named = set(re.findall(r"notebooks/(\d\d_\w+\.ipynb)", README))
    assert named == {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}


BLOCKS = ("results", "lab pydocs", "lab sst2")


@pytest.fixture
def update(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    spec = importlib.util.spec_from_file_location("update", ROOT / "tools" / "update_readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def test_the_results_come_from_the_report(update, tmp_path):
    row = {"name": "student, int8", "size_mb": 17.66, "latency_ms_p50": 1.234}
    row |= {"speedup_batch1": 6.51, "accuracy": 0.7041, "retention": 0.9944}
    task = {"name": "pydocs", "labels": ["a", "b"], "train": 12000, "test": 2800}
    report = tmp_path / "report"
    report.mkdir()
    (report / "results.json").write_text(
        json.dumps({"machine": {"cpu": "A chip", "threads": 2}, "task": task, "rows": [row]})
    )
    (report / "pareto.png").write_bytes(b"png")
    blocks = [f"<!-- {name} -->\nold\n<!-- /{name} -->" for name in BLOCKS]
    (tmp_path / "README.md").write_text("\n".join(["a", *blocks, "b\n"]))
    update.main(report)
    text = (tmp_path / "README.md").read_text()
    assert "| student, int8 | 17.7 | 1.2 | 6.5 | 70.4 | 99.4 |" in text
    assert "`course run --data pydocs` in one run on A chip, 2 threads: 2 classes" in text
    assert "old" not in text
    assert text.startswith("a\n")
    assert text.endswith("b\n")
    assert (tmp_path / "docs" / "results.png").read_bytes() == b"png"


@pytest.mark.parametrize("name", ["pydocs", "sst2"])
def test_the_tables_of_the_lab_are_those_of_the_committed_runs(update, name):
    assert f"<!-- lab {name} -->\n{update.lab(name)}<!-- /lab {name} -->" in README


def test_a_lost_marker_is_named(update):
    with pytest.raises(CourseError, match="<!-- results -->"):
        update.with_block("nothing", "results", "text", where="README.md")
