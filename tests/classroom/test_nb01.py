"""Exercises of notebook 01: right answers written another way are right, real slips are named."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.classroom.checks import exercises


def masks_by_hand(attention_mask):
    texts, length = attention_mask.shape
    look = [
        [[bool(attention_mask[b, k]) and k <= q for k in range(length)] for q in range(length)]
        for b in range(texts)
    ]
    return torch.tensor(look)[:, None]


def attention_of_torch(query, key, value, mask):
    context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return context.nan_to_num()


def attention_with_loops(query, key, value, mask):
    mask = mask.expand(*query.shape[:-1], key.shape[-2])
    context = torch.zeros(*query.shape[:-1], value.shape[-1])
    for *batch, row in itertools.product(*map(range, query.shape[:-1])):
        text = tuple(batch)
        look = mask[(*text, row)]
        if look.any():
            scores = key[text][look] @ query[(*text, row)] / math.sqrt(query.shape[-1])
            context[(*text, row)] = F.softmax(scores, dim=0) @ value[text][look]
    return context


def split_with_chunks(hidden, n_heads):
    return torch.stack(hidden.chunk(n_heads, dim=-1), dim=1)


def merge_with_a_concatenation(heads):
    return torch.cat(list(heads.unbind(dim=1)), dim=-1)


def norm_of_torch(hidden, weight, bias, eps):
    norm = nn.LayerNorm(len(weight), eps=eps)
    norm.load_state_dict({"weight": weight, "bias": bias})
    with torch.no_grad():
        return norm(hidden)


def norm_by_hand(hidden, weight, bias, eps):
    centred = hidden - hidden.mean(-1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps) * weight + bias


def block_in_one_line(hidden, attention, first_norm, feed_forward, second_norm):
    return second_norm((h := first_norm(attention(hidden) + hidden)) + feed_forward(h))


def positions_with_loops(length, hidden_size):
    def number(p, column):
        angle = p / 10000 ** (column // 2 * 2 / hidden_size)
        return math.cos(angle) if column % 2 else math.sin(angle)

    return torch.tensor([[number(p, c) for c in range(hidden_size)] for p in range(length)])


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("may_look", masks_by_hand),
        ("attention", attention_of_torch),
        ("attention", attention_with_loops),
        ("split_heads", split_with_chunks),
        ("merge_heads", merge_with_a_concatenation),
        ("layer_norm", norm_of_torch),
        ("layer_norm", norm_by_hand),
        ("encoder_block", block_in_one_line),
        ("sinusoidal_positions", positions_with_loops),
    ],
)
def test_another_way_to_the_right_answer_is_right(name, answer):
    verdict = exercises()[name].judge(answer)
    assert verdict.state == "right", verdict.why


def attend(query, key, value, mask, *, divide=True, dim=-1, fill=float("-inf")):
    """As a learner writes it: nothing is done about a query that may look nowhere."""
    scores = query @ key.transpose(-2, -1)
    if divide:
        scores = scores / query.shape[-1] ** 0.5
    return torch.softmax(scores.masked_fill(mask == 0, fill), dim=dim) @ value


@pytest.mark.parametrize(
    ("name", "answer", "mistake"),
    [
        ("attention", attend, "nan_where_all_is_hidden"),
        (
            "attention",
            lambda q, k, v, m: attend(q, k, v, m, fill=-1e30),
            "average_where_all_is_hidden",
        ),
        (
            "attention",
            lambda q, k, v, m: attend(q, k, v, m, divide=False),
            "no_root_d_and_nan_where_all_is_hidden",
        ),
        (
            "attention",
            lambda q, k, v, m: attend(q, k, v, m, dim=-2),
            "softmax_over_the_queries_and_nan_where_all_is_hidden",
        ),
        (
            "attention",
            lambda q, k, v, m: attend(q, k, v, ~m, fill=-1e9),
            "mask_the_wrong_way_round_and_average_where_all_is_hidden",
        ),
        (
            "layer_norm",
            lambda h, w, b, eps: w * (h - h.mean(-1, keepdim=True)) / h.std(-1, keepdim=True) + b,
            "plain_std",
        ),
        (
            "split_heads",
            lambda h, a: h.reshape(h.shape[0], a, h.shape[1], -1),
            "view_without_transpose",
        ),
        ("merge_heads", lambda h: h.reshape(h.shape[0], h.shape[2], -1), "not_transposed_back"),
    ],
)
def test_slips_as_learners_write_them_are_named(name, answer, mistake):
    verdict = exercises()[name].judge(answer)
    assert (verdict.state, verdict.mistake) == ("wrong", mistake)


def test_two_slips_are_both_explained():
    verdict = exercises()["attention"].judge(lambda q, k, v, m: attend(q, k, v, m, divide=False))
    assert "√d is missing" in verdict.why
    assert "gets NaN" in verdict.why
