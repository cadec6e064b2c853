"""The ten losses of "Spot the fault": each betrays itself, and the two right ones do not."""

from __future__ import annotations

import inspect

import pytest
import torch

from course_utils.classroom import faults
from course_utils.classroom.checks import exercises
from course_utils.classroom.fault_trials import CONFUSIONS, TRIALS, Teacher, explain
from course_utils.classroom.faults import FAULTS, LOSSES, NO_FAULT, library_loss
from course_utils.distill.losses import distillation_loss

FAULTY = {letter: fault for letter, fault in FAULTS.items() if fault != NO_FAULT}
RIGHT = [letter for letter in LOSSES if letter not in FAULTY]


def batch(seed: int = 0):
    """Logits of student and teacher (B, S, C), labels and mask (B, S) of three padded texts."""
    generator = torch.Generator().manual_seed(seed)
    s, t = (2 * torch.randn(3, 5, 4, generator=generator) for _ in range(2))
    labels = torch.randint(0, 4, (3, 5), generator=generator)
    labels[torch.arange(5) >= torch.tensor([[5], [3], [1]])] = -100
    return s, t, labels


def value_and_gradient(loss, s, t, labels, alpha=0.3, temperature=2.5):
    leaf = s.clone().requires_grad_()
    value = loss(leaf.clone(), Teacher(), t, labels, labels != -100, alpha, temperature)
    value.backward()
    return value.detach(), leaf.grad


def test_eight_are_wrong_each_in_its_own_way_and_two_are_right():
    assert list(FAULTS) == list(LOSSES) == list("ABCDEFGHIJ")
    assert len(RIGHT) == 2
    assert sorted(FAULTY.values()) == sorted(TRIALS)


@pytest.mark.parametrize("letter", FAULTY)
def test_each_fault_fails_the_trial_made_for_it(letter):
    finding = TRIALS[FAULTS[letter]](LOSSES[letter])
    assert not finding.stands
    assert finding.found != TRIALS[FAULTS[letter]](library_loss).found


@pytest.mark.parametrize("fault", TRIALS)
@pytest.mark.parametrize("letter", [*RIGHT, "library"])
def test_what_is_right_stands_every_trial(letter, fault):
    assert TRIALS[fault](LOSSES.get(letter, library_loss)).stands


@pytest.mark.parametrize("letter", [letter for letter in FAULTY if letter not in "DH"])
def test_a_fault_is_found_by_its_own_trial_alone(letter):
    """D is random and H looks wrong wherever the hard loss counts; the others have one trial."""
    assert [fault for fault in TRIALS if not TRIALS[fault](LOSSES[letter]).stands] == [
        FAULTS[letter]
    ]


@pytest.mark.parametrize("letter", LOSSES)
def test_the_gradient_of_the_right_ones_is_the_librarys_and_of_the_others_is_not(letter):
    _, ours = value_and_gradient(LOSSES[letter], *batch())
    _, wanted = value_and_gradient(library_loss, *batch())
    assert torch.allclose(ours, wanted, rtol=1e-5, atol=1e-6) == (letter in RIGHT)


def test_a_right_one_may_differ_by_what_no_student_can_change():
    differences = [
        value_and_gradient(LOSSES["C"], s, t, labels)[0]
        - value_and_gradient(library_loss, s, t, labels)[0]
        for s, (_, t, labels) in zip((batch(1)[0], batch(2)[0]), (batch(), batch()), strict=True)
    ]
    assert differences[0] > 0.1
    torch.testing.assert_close(*differences)


def test_what_all_ten_want_to_be_is_the_librarys_distillation_loss():
    s, t, labels = batch()
    mask = labels != -100
    wanted = distillation_loss(s[mask], t[mask], labels[mask], alpha=0.3, temperature=2.5)
    torch.testing.assert_close(value_and_gradient(library_loss, s, t, labels)[0], wanted)


@pytest.mark.parametrize("letter", LOSSES)
def test_all_ten_run_and_look_alike(letter):
    value, gradient = value_and_gradient(LOSSES[letter], *batch())
    assert value.isfinite()
    assert gradient.isfinite().all()
    source = inspect.getsource(LOSSES[letter])
    assert "#" not in source
    assert '"""' not in source
    assert source.count("\n") <= 9
    assert inspect.signature(LOSSES[letter]) == inspect.signature(faults.loss_a)


@pytest.mark.parametrize("letter", FAULTY)
def test_a_fault_that_was_missed_is_shown_beside_the_library_and_not_named(letter):
    words = explain(letter, NO_FAULT)
    trial = TRIALS[FAULTS[letter]]
    assert trial(LOSSES[letter]).found in words
    assert trial(library_loss).found in words
    assert FAULTS[letter] not in words


@pytest.mark.parametrize("letter", RIGHT)
@pytest.mark.parametrize("fault", TRIALS)
def test_a_loss_that_is_accused_in_vain_is_shown_where_that_fault_would_be_seen(letter, fault):
    assert TRIALS[fault](LOSSES[letter]).found in explain(letter, fault)


def test_a_fault_that_is_not_on_the_list_is_answered_with_the_list():
    words = explain("A", "it is too long")
    assert all(fault in words for fault in (NO_FAULT, *TRIALS))


def test_words_for_frequent_confusions_belong_to_wrong_answers():
    for letter, answer in CONFUSIONS:
        assert answer in TRIALS
        assert answer != FAULTS[letter]
        assert CONFUSIONS[letter, answer] in explain(letter, answer)


def test_the_trials_leave_no_trace_in_the_random_numbers():
    torch.manual_seed(1)
    wanted = torch.rand(2)
    torch.manual_seed(1)
    TRIALS["teacher not frozen"](LOSSES["D"])
    assert torch.equal(torch.rand(2), wanted)


class TestTheCheck:
    hunt = exercises()["spot_the_fault"]

    def test_two_errors_are_counted_and_the_first_is_shown(self):
        verdict = self.hunt.judge(lambda loss: {**FAULTS, "B": NO_FAULT, "H": NO_FAULT}[loss])
        assert (verdict.state, verdict.mistake) == ("wrong", None)
        assert verdict.why.startswith("8 of 10 are right. Loss B: you say “nothing”.")

    @pytest.mark.parametrize("answer", [None, ...])
    def test_letters_may_be_left_open(self, answer):
        verdict = self.hunt.judge(lambda loss: {**FAULTS, "E": answer}[loss])
        assert verdict.why == "9 of 10 are right. Still without an answer: loss E."

    def test_letters_may_be_missing(self):
        verdict = self.hunt.judge(lambda loss: {"A": FAULTS["A"]}[loss])
        assert verdict.why == "1 of 10 are right. Still without an answer: loss B."

    def test_an_error_of_the_learners_own_is_told_as_such(self):
        verdict = self.hunt.judge(lambda loss: loss.no_such_thing)
        assert "AttributeError" in verdict.why
