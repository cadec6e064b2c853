"""Small tensors are printed with their names, and compared to five decimals."""

import pytest
import torch

from course_utils.classroom.hand import legend, near
from course_utils.errors import DataError


def test_rows_and_columns_have_their_names(capsys):
    legend(torch.tensor([[1.0, -0.001], [2.5, 10.0]]), ["the", "bank"], ["water", "money"])
    assert capsys.readouterr().out == (
        "           water   money\n     the    1.00    0.00\n    bank    2.50   10.00\n"
    )


def test_columns_may_go_without_names_and_rows_may_be_numbers(capsys):
    legend(torch.tensor([[1.0, 2.0]]), [64])
    assert capsys.readouterr().out == "      64    1.00    2.00\n"


@pytest.mark.parametrize(
    ("rows", "columns"), [(["a"], []), (["a", "b"], ["x"]), (["a", "b", "c"], ["x", "y"])]
)
def test_names_that_do_not_fit_are_refused(rows, columns):
    with pytest.raises(DataError, match=r"do not fit a tensor of shape \(2, 2\)"):
        legend(torch.ones(2, 2), rows, columns)


def test_near_is_five_decimals_and_the_same_shape():
    ones = torch.ones(2, 3)
    assert near(ones, ones + 9e-6) is True
    assert near(ones, ones + 2e-5) is False
    assert near(1000 * ones, 1000 * ones + 0.001) is False  # absolute, not relative
    assert near(ones, torch.ones(3)) is False
    assert near(torch.tensor(float("nan")), torch.tensor(float("nan"))) is False
