"""Progress: a page that says what is next, and a file that no fault and no other process spoils."""

import json
import re
import subprocess
import sys

import pytest

from course_utils.classroom import check, progress, progress_file
from course_utils.classroom.checks import exercises
from course_utils.classroom.progress_file import VERSION
from course_utils.classroom.quiz import questions, quiz


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(progress_file, "_said", [])
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.delenv("COURSE_PROGRESS", raising=False)
    return tmp_path / "progress.json"


def right(teacher_logits, student_logits):
    return exercises()["agreement"].reference(teacher_logits, student_logits)


def page(capsys):
    """The page as text, each line with single spaces."""
    capsys.readouterr()
    progress.progress()
    return re.sub(r" +", " ", capsys.readouterr().out)


def stored(file):
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found.keys() == {"version", "states"}
    assert found["version"] == VERSION
    return found["states"]


def everything():
    return len(exercises()), sum(map(len, questions().values()))


def test_the_page_says_what_is_done_and_what_is_next(file, capsys):
    out = page(capsys)
    assert " 00 start here 0/1 0/3 not begun\n" in out
    assert "Next: notebook 00, exercise agreement\n" in out
    assert out.rstrip().endswith("00_start_here.ipynb")
    check.agreement(right)
    quiz.why_not_half("b")
    quiz.teacher_asked_once("a")
    assert stored(file) == {
        "agreement": "right",
        "quiz.why_not_half": "right",
        "quiz.teacher_asked_once": "tried",
    }
    out = page(capsys)
    assert " 00 start here 1/1 1/3 agreement_above_accuracy," in out
    assert "teacher_asked_once (tried)" in re.sub(r"\s+", " ", out)
    assert "Next: notebook 00, question agreement_above_accuracy\n" in out
    n_exercises, n_questions = everything()
    assert f" all 1/{n_exercises} 1/{n_questions}\n" in out


def test_next_is_in_the_following_notebook_and_in_the_end_nowhere(capsys):
    check.agreement(right)
    for question in questions()["00"].values():
        progress_file.record(question.key, True)
    out = page(capsys)
    assert " 00 start here 1/1 3/3 ✓ nothing\n" in out
    assert "Next: notebook 01, exercise may_look\n" in out
    for task in progress.tasks():
        name = f"quiz.{task.name}" if task.kind == "question" else task.name
        progress_file.record(name, True)
    out = page(capsys)
    assert "Everything is solved." in out
    assert "Next" not in out
    assert "not begun" not in out


def test_in_a_notebook_the_page_is_html_with_a_link_and_a_text_twin(displayed):
    progress.progress()
    [output] = displayed
    html, text = output["data"]["text/html"], output["data"]["text/plain"]
    assert re.search(r'<a href="[^"]*00_start_here\.ipynb">Next: notebook 00, exercise', html)
    assert html.count("<tr>") == len(questions()) + 2
    assert html.count('scope="row"') == len(questions()) + 1
    assert "Next: notebook 00, exercise agreement" in text


def test_where_the_notebooks_are_not_at_hand_the_page_names_numbers(displayed, monkeypatch):
    monkeypatch.setattr(progress, "_path", lambda number: None)
    progress.progress()
    [output] = displayed
    assert "<a " not in output["data"]["text/html"]
    assert "\n 00 " in output["data"]["text/plain"]
    assert output["data"]["text/plain"].endswith("Next: notebook 00, exercise agreement")


def test_the_order_is_that_of_the_notebook(monkeypatch):
    def in_01():
        return [task.name for task in progress.tasks() if task.notebook == "01"]

    assert in_01()[4:7] == ["layer_norm", "sinusoidal_positions", "encoder_block"]
    assert in_01()[-3:] == list(questions()["01"])
    monkeypatch.setattr(progress, "_path", lambda number: None)
    assert in_01()[4:7] == ["layer_norm", "encoder_block", "sinusoidal_positions"]
    assert in_01()[-3:] == list(questions()["01"])


def test_a_wrong_answer_is_tried_and_takes_nothing_back(file):
    check.agreement(lambda teacher_logits, student_logits: 0.25)
    assert stored(file) == {"agreement": "tried"}
    check.agreement(right)
    check.agreement(lambda teacher_logits, student_logits: 0.25)
    assert stored(file) == {"agreement": "right"}


def test_a_stub_writes_nothing(file):
    check.agreement(lambda teacher_logits, student_logits: None)
    assert not file.exists()


def test_a_file_of_the_first_version_is_read_and_kept_in_the_second(file, capsys):
    file.write_text('{"agreement": "right", "gone": "tried"}', encoding="utf-8")
    assert " 00 start here 1/1 " in page(capsys)
    quiz.why_not_half("b")
    assert stored(file) == {"agreement": "right", "gone": "tried", "quiz.why_not_half": "right"}
    assert "could not be used" not in capsys.readouterr().out


BROKEN = {
    "torn": b'{"agreement": "ri',
    "empty": b"",
    "no text": b"\xff\xfe\x00",
    "two": b"{} {}",
    "deep": b"[" * 100_000,
    "a list": b"[1, 2]",
    "a word": b'"right"',
    "no version": b'{"version": "two", "states": {}}',
    "no number": b'{"version": null, "states": {}}',
    "no states": b'{"version": 2}',
    "states in a list": b'{"version": 2, "states": ["agreement"]}',
    "newer": b'{"version": 3, "states": {"agreement": "tried"}, "more": 1}',
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_file_that_cannot_be_used_is_kept_aside(broken, file, capsys):
    file.write_bytes(BROKEN[broken])
    check.agreement(right)
    check.agreement(right)
    aside = file.with_name("progress-aside-1.json")
    assert aside.read_bytes() == BROKEN[broken]
    assert stored(file) == {"agreement": "right"}
    first, note, second = capsys.readouterr().out.splitlines()
    assert first == second == "✓ agreement: right." or note == second
    assert "could not be used" in first + note
    assert str(aside) in first + note
    assert ("newer version of the course" in first + note) == (broken == "newer")


@pytest.mark.parametrize("broken", ["torn", "newer"])
def test_looking_leaves_it_as_it_is(broken, file, capsys):
    file.write_bytes(BROKEN[broken])
    assert " 00 start here 0/1 0/3 not begun\n" in page(capsys)
    assert file.read_bytes() == BROKEN[broken]
    assert [path.name for path in file.parent.glob("progress*")] == ["progress.json"]


def test_what_was_kept_aside_is_never_written_over(file):
    for k in range(3):
        file.write_text(f"broken {k}", encoding="utf-8")
        check.agreement(right)
    kept = [file.with_name(f"progress-aside-{k}.json").read_text() for k in (1, 2, 3)]
    assert kept == ["broken 0", "broken 1", "broken 2"]


def test_states_of_another_kind_count_for_nothing(file, capsys):
    file.write_text('{"version": 2, "states": {"agreement": {"a": 1}, "gone": "right"}}')
    assert " 00 start here 0/1 0/3 not begun\n" in page(capsys)
    check.agreement(right)
    assert stored(file) == {"gone": "right", "agreement": "right"}


def test_two_notebooks_that_write_at_once_lose_nothing(file):
    code = (
        "import sys\nfrom course_utils.classroom.progress_file import record\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for k in range(40): record(f'{sys.argv[1]}{k}', True)"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "ab"
    ]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in both] == ["", ""]
    assert len(stored(file)) == 80


def test_a_lock_that_nobody_frees_is_said_and_ends_nothing(file, monkeypatch, capsys):
    monkeypatch.setattr(progress_file, "PATIENCE", 0.1)
    with progress_file.FileLock(f"{file}.lock"):
        check.agreement(right)
    assert "✓ agreement: right." in (out := capsys.readouterr().out)
    assert out.count("could not be used") == 1
    assert not file.exists()


def test_a_place_that_cannot_be_written_is_said_once(file, monkeypatch, capsys):
    file.write_text("a file where a folder is needed", encoding="utf-8")
    monkeypatch.setenv("COURSE_CACHE", str(file / "cache"))
    for _ in range(2):
        check.agreement(right)
    progress.progress()
    out = capsys.readouterr().out
    assert out.count("✓ agreement: right.") == 2
    assert out.count("saved progress could not be used") == 1


def test_a_home_of_nobody_is_said_and_ends_nothing(monkeypatch, capsys):
    monkeypatch.setenv("COURSE_PROGRESS", "~nosuchuser/p.json")
    check.agreement(right)
    progress.progress()
    out = capsys.readouterr().out
    assert "✓ agreement: right." in out
    assert out.count("saved progress could not be used. Could not determine home") == 1


def test_a_file_named_by_the_environment_is_used_instead(file, tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "new" / "elsewhere.json"))
    check.agreement(right)
    assert (tmp_path / "new" / "elsewhere.json").exists()
    assert not file.exists()
