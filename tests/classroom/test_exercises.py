"""Every exercise of the course: its answer is right and each known mistake is told as itself."""

import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from course_utils.classroom.checks import exercises

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from notebook_source import read_source  # noqa: E402 - it lives in tools/, which is no package

EXERCISES = list(exercises().values())
MISTAKES = [(exercise, name) for exercise in EXERCISES for name in exercise.mistakes]


def test_the_first_notebook_has_its_exercise():
    assert exercises()["agreement"].notebook == "00"


def test_each_notebook_after_it_has_at_least_five():
    counts = Counter(exercise.notebook for exercise in EXERCISES)
    assert min(n for notebook, n in counts.items() if notebook != "00") >= 5


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
class TestEveryExercise:
    def test_its_reference_is_right(self, exercise):
        assert exercise.judge(exercise.reference).state == "right"

    def test_its_stub_is_not_attempted(self, exercise):
        assert exercise.judge(lambda *arguments: None).state == "not attempted"
        assert exercise.judge(lambda *arguments: ...).state == "not attempted"

    def test_it_has_hints_and_mistakes(self, exercise):
        assert len(exercise.hints) == 3
        assert all(hint.strip() for hint in exercise.hints)
        assert len(exercise.mistakes) >= 4
        assert all(mistake.diagnosis.strip() for mistake in exercise.mistakes.values())

    def test_its_notebook_has_it_with_its_check(self, exercise):
        [source] = (ROOT / "notebooks" / "source").glob(f"{exercise.notebook}_*.py")
        cells = [cell.source for cell in read_source(source).cells if cell.cell_type == "code"]
        [stub] = [k for k, cell in enumerate(cells) if cell.startswith(f"def {exercise.name}(")]
        assert cells[stub].endswith("...  # your code here")
        assert cells[stub + 1] == f"check.{exercise.name}({exercise.name})"

    def test_no_two_mistakes_look_the_same(self, exercise):
        done = {name: exercise._outcomes_of(m.function) for name, m in exercise.mistakes.items()}
        for one, other in combinations(done, 2):
            assert not all(
                a.matches(b, exercise.tolerance)
                for a, b in zip(done[one], done[other], strict=True)
            ), f"{one} and {other} give the same on all cases"

    def test_a_wrong_answer_nobody_knows_is_still_wrong(self, exercise):
        verdict = exercise.judge(lambda *arguments: "something else")
        assert verdict.state == "wrong"
        assert verdict.mistake is None


@pytest.mark.parametrize(
    ("exercise", "name"), MISTAKES, ids=lambda value: getattr(value, "name", value)
)
def test_each_mistake_is_diagnosed_as_itself(exercise, name):
    verdict = exercise.judge(exercise.mistakes[name].function)
    assert (verdict.state, verdict.mistake) == ("wrong", name)
    assert verdict.why == exercise.mistakes[name].diagnosis


def test_agreement_is_right_whichever_way_it_is_written():
    def by_hand(teacher_logits, student_logits):
        rows = zip(teacher_logits.tolist(), student_logits.tolist(), strict=True)
        return sum(a.index(max(a)) == b.index(max(b)) for a, b in rows) / len(teacher_logits)

    assert exercises()["agreement"].judge(by_hand).state == "right"
