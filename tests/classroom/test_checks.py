"""The check machinery, on exercises made up for it."""

import warnings

import numpy as np
import pytest
import torch

from course_utils.classroom import check, checks
from course_utils.classroom.checks import exercise
from course_utils.errors import CourseError


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "progress.json"))


def _cases():
    yield (np.arange(6.0).reshape(2, 3), 2.0)
    yield (np.array([1.0, -2.0]), 4.0)


@exercise(cases=_cases, hints=("first hint", "second hint", "third hint"))
def halve(values, by):
    return values / by


@halve.mistake("You multiply.")
def multiplies(values, by):
    return values * by


@halve.mistake("Division has a sign: /.")
def stops(values, by):
    raise ValueError("no sign")


@pytest.fixture(autouse=True)
def known_exercises(monkeypatch):
    monkeypatch.setattr(checks, "exercises", lambda: {"halve": halve})


def said(function, capsys):
    assert check.halve(function) is None
    return capsys.readouterr().out


def raises_not_implemented(values, by):
    raise NotImplementedError


@pytest.mark.parametrize(
    "stub", [lambda values, by: None, lambda values, by: ..., raises_not_implemented, ..., None]
)
def test_a_stub_gets_the_first_hint(stub, capsys):
    out = said(stub, capsys)
    assert out.startswith("○ halve: not attempted yet")
    assert "Hint 1 of 3: first hint" in out
    assert "check.halve.hint(2)" in out


def test_right(capsys):
    assert said(lambda values, by: values / by, capsys) == "✓ halve: right.\n"


def test_right_within_the_tolerance_and_wrong_beyond_it():
    assert halve.judge(lambda values, by: values / by + 1e-8).state == "right"
    assert halve.judge(lambda values, by: values / by + 1e-3).state == "wrong"


def test_a_list_of_the_right_numbers_is_right():
    assert halve.judge(lambda values, by: (values / by).tolist()).state == "right"


def test_a_known_mistake_is_named_and_help_offered(capsys):
    out = said(lambda values, by: by * values, capsys)
    assert out == "✗ halve: You multiply.\n  More help: check.halve.hint(1)\n"


def test_a_mistake_that_stops_is_known_by_its_error():
    def sign(values, by):
        raise ValueError("no sign")

    assert halve.judge(sign).mistake == "stops"


def test_an_error_is_told_with_its_own_line(capsys):
    def helper(values):
        return values["a"]

    def broken(values, by):
        total = 0
        return total + helper({"b": values})

    line = broken.__code__.co_firstlineno - 2  # the line of `return values["a"]`
    out = said(broken, capsys)
    assert "KeyError: 'a'" in out
    assert f'in line {line}: return values["a"]' in out


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda values, by: "half", "returns a text; an array of shape (2,) is expected"),
        (lambda values, by: 1.0, "returns a number; an array of shape (2,) is expected"),
        (lambda values, by: values[:1], "returns an array of shape (1,); an array of shape (2,)"),
        (lambda values, by: {"a": values}, "returns a dict of length 1"),
        (lambda values, by: None if by == 4 else values, "returns nothing (None)"),
        (lambda values: values, "called with (values, by), and yours cannot be"),
        (np.array([1.0]), "Give the function itself, without calling it: check.halve(halve)"),
    ],
)
def test_wrong_types_shapes_and_signatures_are_said(answer, words, capsys):
    assert words in " ".join(said(answer, capsys).split())


def test_another_wrong_answer_shows_the_smallest_case(capsys):
    assert said(lambda values, by: values + by, capsys).splitlines() == [
        "✗ halve: The result differs on this case.",
        "    values = [1, -2]",
        "    by = 4",
        "    expected [0.25, -0.5]",
        "    got      [5, 2]",
        "  More help: check.halve.hint(1)",
    ]


def test_changing_the_inputs_is_found_and_harms_no_other_case(capsys):
    def in_place(values, by):
        values /= by
        return values

    assert "changes `values`" in said(in_place, capsys)
    assert halve.judge(lambda values, by: values / by).state == "right"


def test_what_a_learner_prints_is_fine(capsys):
    def talks(values, by):
        print("hello")
        return values / by

    assert said(talks, capsys).splitlines()[-1] == "✓ halve: right."


def test_warnings_of_the_courses_own_functions_are_not_the_learners():
    @exercise(cases=lambda: [(1.0,)], hints=("h",))
    def loud(x):
        warnings.warn("noise", stacklevel=1)
        return x

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loud.judge(lambda x: x).state == "right"


def test_hints_on_request(capsys):
    check.halve.hint(2)
    assert capsys.readouterr().out == (
        "  Hint 2 of 3: second hint\n  More help: check.halve.hint(3)\n"
    )
    check.halve.hint(3)
    assert capsys.readouterr().out == "  Hint 3 of 3: third hint\n"
    for number in (0, 4, "2"):
        with pytest.raises(CourseError, match="from 1 to 3"):
            check.halve.hint(number)


def test_an_unknown_exercise_lists_those_there_are():
    with pytest.raises(CourseError, match=r"(?s)no exercise halv\b.*Use one of: halve\."):
        check.halv  # noqa: B018 - looking it up is the mistake
    assert not hasattr(check, "halv")
    assert "halve" in dir(check)
    assert "check.halve.hint(1)" in repr(check.halve)


def test_tensors_keep_their_gradient():
    @exercise(cases=lambda: [(torch.tensor([1.0, 2.0], requires_grad=True),)], hints=("h",))
    def loss(logits):
        return logits.square().mean()

    @loss.mistake("You sum.")
    def sums(logits):
        return logits.square().sum()

    assert loss.judge(lambda logits: (logits**2).sum() / 2).state == "right"
    assert loss.judge(lambda logits: (logits * logits).sum()).mistake == "sums"
    for cut in (lambda logits: logits.square().mean().item(), lambda t: t.detach().square().mean()):
        verdict = loss.judge(cut)
        assert verdict.state == "wrong"
        assert "a torch tensor of shape () with a gradient is expected" in verdict.why


def test_answers_of_several_parts_are_compared_part_by_part():
    @exercise(cases=lambda: [([3, 1, 2],)], hints=("h",))
    def sort(items):
        return {"sorted": sorted(items), "name": "x", "parts": (np.ones(2), [1.0])}

    def other(items, **changes):
        return {"sorted": [1, 2, 3], "name": "x", "parts": (np.ones(2), [1.0]), **changes}

    assert sort.judge(other).state == "right"
    for changes in ({"sorted": [1, 2]}, {"name": "y"}, {"parts": (np.ones(2), [2.0])}):
        assert sort.judge(lambda items, c=changes: other(items, **c)).state == "wrong"
