"""What is kept for the backward pass: counted once each, and without the weights."""

import pytest
import torch
from torch import nn

from course_utils.measure.memory import kept_for_backward
from course_utils.models.encoder import EncoderBlock


def test_a_linear_map_keeps_its_input_and_not_its_weights():
    x = torch.randn(3, 5, 16)
    [(shape, size)] = kept_for_backward(nn.Linear(16, 32), x)
    assert shape.numel() == 3 * 5 * 16
    assert size == 3 * 5 * 16 * 4


def test_what_two_operations_keep_counts_once():
    class Square(nn.Module):
        def forward(self, x):
            return x * x.sin()  # `x` is kept by sin and by the product

    sizes = [size for _, size in kept_for_backward(Square(), torch.randn(10, requires_grad=True))]
    assert sizes == [40, 40]  # x, and its sine


def test_without_a_gradient_nothing_is_kept():
    assert kept_for_backward(nn.Softmax(dim=-1), torch.randn(4, 4)) == []


@pytest.mark.parametrize("length", [7, 14])
def test_a_block_keeps_one_table_of_pairs_per_head(length):
    kept = kept_for_backward(EncoderBlock(12, 3, 24), torch.randn(2, length, 12))
    pairs = [size for shape, size in kept if shape[-2:] == (length, length)]
    assert sum(pairs) == 2 * 3 * length * length * 4
