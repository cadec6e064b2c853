"""Progress is kept in one file, and no state of that file breaks a notebook."""

import json

import pytest

from course_utils.classroom import check, progress
from course_utils.classroom.checks import exercises
from course_utils.classroom.quiz import questions, quiz


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "_said", [])
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.delenv("COURSE_PROGRESS", raising=False)
    return tmp_path / "progress.json"


def right(teacher_logits, student_logits):
    return exercises()["agreement"].reference(teacher_logits, student_logits)


def table(capsys):
    capsys.readouterr()
    progress.progress()
    return capsys.readouterr().out


def everything():
    return len(exercises()) + sum(map(len, questions().values()))


def test_right_is_kept_and_shown(file, capsys):
    assert "00        0/1     ○ agreement" in table(capsys)
    check.agreement(right)
    assert json.loads(file.read_text(encoding="utf-8")) == {"agreement": "right"}
    out = table(capsys)
    assert "00        1/1     ✓ agreement" in out
    assert out.splitlines()[-1] == f"all       1/{everything()}"


def test_quiz_questions_have_a_line_of_their_own_under_their_notebook(file, capsys):
    lines = table(capsys).splitlines()
    assert lines[1].startswith("00        0/1     ○ agreement")
    assert lines[2].startswith("00 quiz   0/3     ○ why_not_half  ○ ")
    quiz.why_not_half("b")
    quiz.teacher_asked_once("a")
    assert json.loads(file.read_text(encoding="utf-8")) == {
        "quiz.why_not_half": "right",
        "quiz.teacher_asked_once": "tried",
    }
    lines = table(capsys).splitlines()
    assert lines[2].startswith("00 quiz   1/3     ✓ why_not_half  ○ ")
    assert lines[-1] == f"all       1/{everything()}"


def test_a_wrong_answer_is_tried_and_takes_nothing_back(file, capsys):
    check.agreement(lambda teacher_logits, student_logits: 0.25)
    assert json.loads(file.read_text(encoding="utf-8")) == {"agreement": "tried"}
    check.agreement(right)
    check.agreement(lambda teacher_logits, student_logits: 0.25)
    assert json.loads(file.read_text(encoding="utf-8")) == {"agreement": "right"}


def test_a_stub_writes_nothing(file, capsys):
    check.agreement(lambda teacher_logits, student_logits: None)
    assert not file.exists()


@pytest.mark.parametrize("torn", [b'{"agreement": "ri', b"", b"\xff\xfe\x00", b"{} {}"])
def test_a_torn_file_is_said_once_and_begun_anew(torn, file, capsys):
    file.write_bytes(torn)
    check.agreement(right)
    verdict, note = capsys.readouterr().out.splitlines()
    assert verdict == "✓ agreement: right."
    assert note.startswith("(Your saved progress could not be used: ")
    assert "1/1" in table(capsys)
    assert json.loads(file.read_text(encoding="utf-8")) == {"agreement": "right"}


@pytest.mark.parametrize(
    "odd", ["[1, 2]", '"right"', '{"agreement": {"state": 1}, "gone": "right"}']
)
def test_a_file_of_another_shape_counts_for_nothing(odd, file, capsys):
    file.write_text(odd, encoding="utf-8")
    assert "0/1     ○ agreement" in table(capsys)
    check.agreement(right)
    assert "1/1" in table(capsys)


def test_a_place_that_cannot_be_written_is_said_once(file, monkeypatch, capsys):
    file.write_text("a file where a folder is needed", encoding="utf-8")
    monkeypatch.setenv("COURSE_CACHE", str(file / "cache"))
    for _ in range(2):
        check.agreement(right)
    progress.progress()
    out = capsys.readouterr().out
    assert out.count("✓ agreement: right.") == 2
    assert out.count("saved progress could not be used") == 1


def test_a_file_named_by_the_environment_is_used_instead(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "elsewhere.json"))
    check.agreement(right)
    assert (tmp_path / "elsewhere.json").exists()
    assert not file.exists()
