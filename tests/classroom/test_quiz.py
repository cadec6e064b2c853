"""The quiz: its machinery on a question made up here, and the questions of the notebooks."""

import importlib
import json
import pkgutil
from pathlib import Path

import pytest

from course_utils.classroom import quiz as quiz_module
from course_utils.classroom import quizzes
from course_utils.classroom.quiz import Choice, Question, questions, quiz
from course_utils.errors import CourseError

SOURCES = Path(__file__).resolve().parents[2] / "notebooks" / "source"
ALL = [(notebook, q) for notebook, group in questions().items() for q in group.values()]
SUM = Question(
    "sum",
    "How much is two and two?",
    (Choice("three", "One is missing."), Choice("four", "Count them.", right=True)),
)


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "progress.json"))
    return tmp_path / "progress.json"


@pytest.fixture
def one_question(monkeypatch):
    monkeypatch.setattr(quiz_module, "questions", lambda: {"07": {"sum": SUM}})


ASKED = """\
? How much is two and two?
  a) three
  b) four
  To answer, give a letter: quiz.sum("…")
"""


@pytest.mark.usefixtures("one_question")
class TestAsking:
    def test_without_an_answer_the_question_is_asked_and_nothing_noted(self, file, capsys):
        assert quiz.sum() is None
        assert capsys.readouterr().out == ASKED
        assert repr(quiz.sum) + "\n" == ASKED  # for those who leave the brackets out
        assert not file.exists()

    @pytest.mark.parametrize("answer", ["b", "B", " b) "])
    def test_a_right_answer_is_explained_and_kept(self, answer, file, capsys):
        quiz.sum(answer)
        assert capsys.readouterr().out == (
            "? How much is two and two?\n  a) three\n→ b) four\n✓ b is right. Count them.\n"
        )
        assert json.loads(file.read_text(encoding="utf-8"))["states"] == {"quiz.sum": "right"}

    def test_a_wrong_answer_is_told_its_own_reason_and_not_the_right_letter(self, file, capsys):
        quiz.sum("a")
        assert capsys.readouterr().out == (
            "? How much is two and two?\n→ a) three\n  b) four\n✗ a is not right. One is missing.\n"
        )
        assert json.loads(file.read_text(encoding="utf-8"))["states"] == {"quiz.sum": "tried"}

    def test_asking_again_after_a_right_answer_prints_the_same_as_before(self, capsys):
        quiz.sum("b")
        capsys.readouterr()
        quiz.sum()
        assert capsys.readouterr().out == ASKED

    @pytest.mark.parametrize("answer", ["c", "", "ab", "four", 2, True])
    def test_what_is_no_letter_is_refused_with_the_letters(self, answer, file):
        with pytest.raises(CourseError, match=r"no choice[\s\S]*one letter of a, b: quiz\.sum"):
            quiz.sum(answer)
        assert not file.exists()

    def test_an_unknown_question_lists_those_there_are(self):
        with pytest.raises(CourseError, match=r"(?s)no question difference\b.*Use one of: sum\."):
            quiz.difference  # noqa: B018 - looking it up is the mistake
        assert not hasattr(quiz, "difference")
        assert dir(quiz) == ["sum"]


def test_long_texts_are_broken_into_lines_that_fit_a_cell(capsys):
    for group in questions().values():
        for name in group:
            getattr(quiz, name)("a")
    lines = capsys.readouterr().out.splitlines()
    assert 80 < max(map(len, lines)) <= 92


def test_every_module_of_questions_belongs_to_a_notebook_and_has_three():
    modules = {module.name for module in pkgutil.iter_modules(quizzes.__path__)}
    assert modules == {f"nb{notebook}" for notebook in questions()}
    assert {len(group) for group in questions().values()} == {3}


def test_two_questions_of_one_name_are_an_error(monkeypatch):
    first, second = (
        importlib.import_module(f"{quizzes.__name__}.nb{number}") for number in ("00", "01")
    )
    monkeypatch.setattr(second, "QUESTIONS", first.QUESTIONS[:1])
    with pytest.raises(ValueError, match=f"two questions are named {first.QUESTIONS[0].name}"):
        questions.__wrapped__()


@pytest.mark.parametrize(("notebook", "question"), ALL, ids=[question.name for _, question in ALL])
class TestEveryQuestion:
    def test_one_choice_is_right_and_each_has_its_own_explanation(self, notebook, question):
        assert question.name.isidentifier()
        assert question.text.endswith("?")
        assert sum(choice.right for choice in question.choices) == 1
        assert 3 <= len(question.choices) == len(question.lettered())
        for part in ("text", "why"):
            assert len({getattr(choice, part).strip() for choice in question.choices} - {""}) == (
                len(question.choices)
            )

    def test_its_notebook_asks_it(self, notebook, question):
        [source] = SOURCES.glob(f"{notebook}_*.py")
        assert f"quiz.{question.name}()" in source.read_text(encoding="utf-8")


@pytest.mark.parametrize("group", questions().values(), ids=questions().keys())
def test_the_right_letter_is_not_always_the_same(group):
    right = {
        letter for q in group.values() for letter, choice in q.lettered().items() if choice.right
    }
    assert len(right) > 1
