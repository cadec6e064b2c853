"""The answers in docs/faq.md are short, and name commands that exist and measured numbers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.main import get_command

from course_utils.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
LAB = json.loads((ROOT / "course_utils/lab/references/pydocs.json").read_text(encoding="utf-8"))
MEASURED = re.compile(r"`([^`]+)`: ([\d.]+) times as small, ([\d.]+) times as fast")


def answers():
    parts = re.split(r"^### (.+)$", PAGE, flags=re.MULTILINE)
    return [
        (question, text.partition("\n## ")[0].strip())
        for question, text in zip(parts[1::2], parts[2::2], strict=True)
    ]


@pytest.mark.parametrize(("question", "answer"), answers(), ids=lambda text: text[:30])
def test_answers_are_short_and_show_where(question, answer):
    assert question.endswith("?")
    plain = re.sub(r"`[^`]*`|\]\([^)]*\)|\d\.\d", "x", answer)
    assert 2 <= len(re.findall(r"[.?!](?=\s|$|\))", plain)) <= 6
    assert re.search(r"`|\]\(", answer), "name a command, a function or a section"


def test_commands_and_their_options_exist():
    commands = get_command(app).commands
    named = re.findall(r"`course ([\w-]+)([^`]*)`", PAGE)
    assert len(named) >= 8
    for name, options in named:
        known = {word for parameter in commands[name].params for word in parameter.opts}
        assert set(re.findall(r"--[\w-]+", options)) <= known
    known = {word for name in commands for p in commands[name].params for word in p.opts}
    assert set(re.findall(r"`(--[\w-]+)`", PAGE)) <= known
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"`make ([a-z-]+)`", PAGE)) <= set(targets)


def test_measured_numbers_are_those_of_the_labs_run():
    text = " ".join(PAGE.split())
    rows = {row["name"]: row for row in LAB["rows"]}
    found = MEASURED.findall(text)
    assert len(found) >= 4
    for name, small, fast in found:
        row = rows[name]
        assert (small, fast) == (f"{row['size_ratio']:.1f}", f"{row['speedup_batch1']:.1f}"), name
    others = re.findall(r"\d+\.\d+|\d+ ?%", MEASURED.sub("", text))
    assert others == [], "a number that nothing checks"
