"""A claim prints its sentence or stops; it takes True and False and nothing else."""

import numpy as np
import pytest
import torch

from course_utils.classroom import claim
from course_utils.classroom.claims import ClaimError
from course_utils.errors import CourseError


@pytest.mark.parametrize("yes", [True, np.bool_(True), np.array(True), torch.tensor(True)])
def test_a_claim_that_holds_prints_its_sentence(yes, capsys):
    assert claim("the student is smaller", yes) is None
    assert capsys.readouterr().out == "✓ the student is smaller\n"


@pytest.mark.parametrize("no", [False, np.bool_(False), torch.tensor(False)])
def test_a_claim_that_fails_names_the_sentence(no, capsys):
    with pytest.raises(ClaimError, match="the student is smaller") as caught:
        claim("the student is smaller", no)
    assert isinstance(caught.value, CourseError)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "value", [1, 0.95, None, "yes", np.float64(1), torch.tensor(1.0), [True], {"a": 1}]
)
def test_a_claim_on_anything_but_a_bool_is_a_mistake(value, capsys):
    with pytest.raises(ClaimError, match="one True or False"):
        claim("the student is good", value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("many", [np.array([True, True]), torch.tensor([True]), np.array([True])])
def test_a_claim_on_many_values_says_what_to_do(many):
    with pytest.raises(ClaimError, match=r"shape \(\d,\)[\s\S]*\.all\(\)"):
        claim("all students are good", many)
