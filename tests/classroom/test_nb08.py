"""Exercises of notebook 08: right answers written another way are right, real slips are named."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from transformers import BertConfig, BertModel

from course_utils.classroom.checks import exercises
from course_utils.compress.pruning import Kept, gradual, remove

MINE = {name: exercise for name, exercise in exercises().items() if exercise.notebook == "08"}


# Right answers, written in other ways


def prune_by_threshold(weight, share):
    sizes = weight.abs().flatten().sort().values
    return torch.where(weight.abs() < sizes[round(share * len(sizes))], 0.0, weight)


def prune_with_topk(weight, share):
    mask = torch.zeros(weight.numel())
    n_left = weight.numel() - round(share * weight.numel())
    mask[weight.abs().flatten().topk(n_left).indices] = 1
    return weight * mask.view_as(weight)


def prune_with_torch(weight, share):
    linear = nn.Linear(*weight.shape[::-1], bias=False)
    linear.weight.data = weight.clone()
    prune.l1_unstructured(linear, "weight", amount=round(share * weight.numel()))
    return linear.weight.detach()


def rows_by_reshape(heads, head_size):
    every = np.arange((max(heads) + 1) * head_size).reshape(-1, head_size)
    return every[heads].flatten().tolist()


def rows_with_ranges(heads, head_size):
    rows = []
    for head in heads:
        rows.extend(range(head * head_size, (head + 1) * head_size))
    return rows


def cut_with_select(w_in, b_in, w_out, b_out, kept):
    places = torch.tensor(kept)
    return (
        w_in.index_select(0, places),
        b_in.index_select(0, places),
        w_out.index_select(1, places),
        b_out.clone(),
    )


def taylor_with_einsum(activations, gradients):
    return torch.einsum("nsf,nsf->nf", activations, gradients).abs().mean(0)


def taylor_in_a_loop(activations, gradients):
    total = torch.zeros(activations.shape[-1])
    for a, g in zip(activations, gradients, strict=True):
        total += sum(one * other for one, other in zip(a, g, strict=True)).abs()
    return total / len(activations)


def movement_in_a_loop(weights, gradients):
    score = torch.zeros(weights.shape[1])
    for w, g in zip(weights, gradients, strict=True):
        score -= (w * g).sum(-1)
    return score


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("prune_weights", prune_by_threshold),
        ("prune_weights", prune_with_topk),
        ("prune_weights", prune_with_torch),
        ("rows_of_heads", rows_by_reshape),
        ("rows_of_heads", rows_with_ranges),
        ("cut_neurons", cut_with_select),
        ("taylor_scores", taylor_with_einsum),
        ("taylor_scores", taylor_in_a_loop),
        ("movement_scores", movement_in_a_loop),
        ("gone_after", lambda end, rounds: gradual(0, end, rounds)),
    ],
)
def test_another_way_to_the_right_answer_is_right(name, answer):
    verdict = MINE[name].judge(answer)
    assert verdict.state == "right", verdict.why


# Slips as learners write them


def prune_without_abs(weight, share):
    pruned = weight.flatten().clone()
    pruned[torch.topk(pruned, round(share * len(pruned)), largest=False).indices] = 0
    return pruned.view_as(weight)


def prune_per_row(weight, share):
    n = round(share * weight.shape[1])
    pruned = weight.clone()
    return pruned.scatter(1, weight.abs().argsort(1)[:, :n], 0.0)


def cut_with_a_mask(w_in, b_in, w_out, b_out, kept):
    w_in, b_in, w_out = w_in.clone(), b_in.clone(), w_out.clone()
    for k in range(len(b_in)):
        if k not in kept:
            w_in[k], b_in[k], w_out[:, k] = 0, 0, 0
    return w_in, b_in, w_out, b_out


@pytest.mark.parametrize(
    ("name", "answer", "mistake"),
    [
        ("prune_weights", prune_without_abs, "sign_counts"),
        ("prune_weights", prune_per_row, "each_row_its_share"),
        ("rows_of_heads", lambda heads, head_size: heads, "heads_as_rows"),
        (
            "rows_of_heads",
            lambda h, n: [x for i in h for x in range(i * n - n, i * n)],
            "heads_from_one",
        ),
        ("cut_neurons", cut_with_a_mask, "zeros_in_their_place"),
        ("cut_neurons", lambda a, b, c, d, k: (a[k], b, c[:, k], d), "old_bias"),
        ("taylor_scores", lambda a, g: (a * g).abs().sum(1).mean(0), "absolute_too_early"),
        ("taylor_scores", lambda a, g: (a * g).mean(0).sum(0).abs(), "absolute_too_late"),
        ("movement_scores", lambda w, g: (w * g).sum(0).sum(-1), "no_minus"),
        ("movement_scores", lambda w, g: -(w[-1] * g[-1]).sum(-1), "last_step_alone"),
        ("gone_after", lambda e, n: np.linspace(0, e, n + 1)[1:], "straight_line"),
        (
            "gone_after",
            lambda e, n: [e - e * (1 - t / n) ** 3 for t in range(n)],
            "rounds_from_zero",
        ),
    ],
)
def test_slips_as_learners_write_them_are_named(name, answer, mistake):
    verdict = MINE[name].judge(answer)
    assert (verdict.state, verdict.mistake) == ("wrong", mistake), verdict.why


def test_who_changes_the_matrix_in_place_is_told():
    def in_place(weight, share):
        flat = weight.view(-1)
        flat[flat.abs().argsort()[: round(share * len(flat))]] = 0
        return weight

    verdict = MINE["prune_weights"].judge(in_place)
    assert (verdict.state, verdict.mistake) == ("wrong", None)
    assert "changes `weight`" in verdict.why


def test_a_list_for_a_tuple_is_told():
    verdict = MINE["cut_neurons"].judge(lambda a, b, c, d, k: [a[k], b[k], c[:, k], d])
    assert "a tuple of length 4 is expected" in verdict.why


# The exercises are about what the library does


def test_cut_neurons_is_what_remove_does():
    torch.manual_seed(0)
    model = BertModel(
        BertConfig(
            vocab_size=20,
            hidden_size=12,
            num_hidden_layers=1,
            num_attention_heads=3,
            intermediate_size=7,
        )
    )
    small = remove(model, Kept(heads=((0, 2),), neurons=((1, 4, 6),)))
    before, after = model.encoder.layer[0], small.encoder.layer[0]

    def four(layer):
        first, second = layer.intermediate.dense, layer.output.dense
        return first.weight, first.bias, second.weight, second.bias

    expected = MINE["cut_neurons"].reference(*four(before), [1, 4, 6])
    assert all(map(torch.equal, four(after), expected))
    rows = MINE["rows_of_heads"].reference([0, 2], 4)
    query = before.attention.self.query.weight[rows]
    assert torch.equal(after.attention.self.query.weight, query)


def test_movement_is_the_change_in_size_for_one_plain_step():
    """-w · g · 2 · rate is the first-order change of w² in a step of gradient descent."""
    [weights, gradients] = next(iter(MINE["movement_scores"].cases()))
    rate = 1e-4
    grown = ((weights - rate * gradients).square() - weights.square()).sum((0, 2)) / (2 * rate)
    score = MINE["movement_scores"].reference(weights, gradients)
    torch.testing.assert_close(score, grown, atol=2e-2, rtol=1e-2)
