"""Attention against loops over Python numbers and against PyTorch's own, values and gradients."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.errors import DataError, ModelError
from course_utils.models.attention import (
    MultiHeadAttention,
    causal_mask,
    merge_heads,
    need_ids,
    padding_mask,
    scaled_dot_product,
    split_heads,
)

B, A, S, D = 2, 3, 5, 4  # texts, heads, positions, size of a head
H = A * D
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
PADDING = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
MASKS = {
    "no mask": None,
    "padding": padding_mask(PADDING),
    "causal": causal_mask(S),
    "causal and padding": causal_mask(S) & padding_mask(PADDING),
    "other for each head": torch.rand(B, A, S, S, generator=torch.manual_seed(1)) < 0.7,
}
BLIND = torch.ones(B, 1, S, S, dtype=torch.bool)
BLIND[0, 0, 2], BLIND[1] = False, False  # one row of the first text, every row of the second
BLIND_MASKS = {
    "one row": BLIND[:1],
    "a whole text": BLIND,
    "a text of padding": padding_mask(PADDING * torch.tensor([[1], [0]])),
    "everything": torch.zeros(1, 1, dtype=torch.bool),
}


def each(masks: dict) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("mask", masks.values(), ids=masks.keys())


def numbers(*shape: int, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.manual_seed(seed), dtype=torch.float64).to(dtype)


def three(dtype=torch.float32, n_keys: int = S, value_size: int = D) -> list[torch.Tensor]:
    """Query, key and value in heads, ready for a gradient."""
    sizes = ((S, D), (n_keys, D), (n_keys, value_size))
    tensors = [numbers(B, A, *size, seed=k, dtype=dtype) for k, size in enumerate(sizes)]
    return [tensor.requires_grad_() for tensor in tensors]


def same(found, expected) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE[expected.dtype])


def gradients(output: torch.Tensor, inputs) -> tuple[torch.Tensor, ...]:
    """The gradients of a sum in which every number of the output has a weight of its own."""
    loss = (output * numbers(*output.shape, seed=9, dtype=output.dtype)).sum()
    return torch.autograd.grad(loss, list(inputs))


def by_hand(queries, keys, values, allowed) -> tuple[list, list]:
    """One head, slowly, with lists of Python floats: contexts and weights."""
    columns = list(zip(*values, strict=True))
    contexts, weights = [], []
    for i, query in enumerate(queries):
        products = [sum(q * k for q, k in zip(query, key, strict=True)) for key in keys]
        exps = [
            math.exp(p / math.sqrt(len(query))) if allowed[i][j] else 0.0
            for j, p in enumerate(products)
        ]
        row = [e / (sum(exps) or 1.0) for e in exps]
        weights.append(row)
        contexts.append(
            [sum(w * v for w, v in zip(row, column, strict=True)) for column in columns]
        )
    return contexts, weights


@each(MASKS | BLIND_MASKS)
def test_scaled_dot_product_equals_the_loops(mask):
    query, key, value = three(torch.float64, value_size=6)
    context, weights = scaled_dot_product(query, key, value, mask=mask)
    assert (context.shape, weights.shape) == ((B, A, S, 6), (B, A, S, S))
    allowed = torch.ones(B, A, S, S).bool() if mask is None else mask.expand(B, A, S, S)
    for b in range(B):
        for a in range(A):
            expected = by_hand(*(t[b, a].tolist() for t in (query, key, value, allowed)))
            for found, wanted in zip((context, weights), expected, strict=True):
                same(found[b, a], torch.tensor(wanted, dtype=torch.float64))


@each(MASKS | BLIND_MASKS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_scaled_dot_product_equals_pytorchs_in_value_and_gradient(dtype, mask):
    inputs = three(dtype)
    context, _ = scaled_dot_product(*inputs, mask=mask)
    expected = F.scaled_dot_product_attention(*inputs, attn_mask=mask)
    same(context, expected)
    for found, wanted in zip(gradients(context, inputs), gradients(expected, inputs), strict=True):
        same(found, wanted)


def test_queries_and_keys_may_differ_in_number_and_there_may_be_no_batch():
    query, key, value = three(n_keys=7, value_size=6)
    mask = numbers(S, 7) > 0
    context, weights = scaled_dot_product(query, key, value, mask=mask)
    assert (context.shape, weights.shape) == ((B, A, S, 6), (B, A, S, 7))
    same(context, F.scaled_dot_product_attention(query, key, value, attn_mask=mask))
    alone, _ = scaled_dot_product(query[0, 0], key[0, 0], value[0, 0], mask=mask)
    same(alone, context[0, 0])


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@each(BLIND_MASKS)
def test_who_may_look_nowhere_sees_zero_and_learns_nothing(mask):
    inputs = three()
    with torch.autograd.detect_anomaly():  # raises where a NaN appears on the way back
        context, weights = scaled_dot_product(*inputs, mask=mask)
        found = gradients(torch.cat([context, weights], dim=-1), inputs)
    blind = ~mask.expand(B, A, S, S).any(-1)
    assert blind.any()
    assert (context[blind] == 0).all()
    assert (weights[blind] == 0).all()
    assert (context[~blind] != 0).all()
    assert all(gradient.isfinite().all() for gradient in found)
    assert (found[0][blind] == 0).all()  # the query's


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_masks_work_in_half_precision(dtype):
    query, key, value = (30 * tensor.detach().to(dtype) for tensor in three())
    context, weights = scaled_dot_product(query, key, value, mask=BLIND & causal_mask(S))
    assert weights.dtype == context.dtype == dtype
    assert context.isfinite().all()
    assert (weights.masked_select(~causal_mask(S)) == 0).all()


def test_weights_are_a_share_of_what_may_be_seen():
    _, weights = scaled_dot_product(*three(), mask=MASKS["causal and padding"])
    same(weights.sum(-1), torch.ones(B, A, S))
    assert (weights.masked_select(~MASKS["causal and padding"]) == 0).all()
    assert (weights.masked_select(MASKS["causal and padding"]) > 0).all()


def test_dropout_leaves_weights_out_and_returns_them_whole():
    query, key, value = three()
    torch.manual_seed(0)
    context, weights = scaled_dot_product(query, key, value, dropout=0.5)
    torch.manual_seed(0)
    same(context, F.dropout(weights, 0.5) @ value)
    same(weights, scaled_dot_product(query, key, value)[1])
    assert not torch.allclose(context, weights @ value)


# Masks and heads


def test_padding_mask_marks_tokens_for_every_query_and_head():
    mask = padding_mask(PADDING)
    assert (mask.shape, mask.dtype) == ((B, 1, 1, S), torch.bool)
    assert mask[:, 0, 0].tolist() == PADDING.bool().tolist()
    assert torch.equal(padding_mask(PADDING.bool()), mask)


def test_causal_mask_shows_what_was_before():
    mask = causal_mask(4)
    assert mask.tolist() == [[k <= q for k in range(4)] for q in range(4)]
    assert mask.dtype == torch.bool


def test_a_head_is_a_piece_of_each_position_and_merging_undoes_it():
    hidden = torch.arange(B * S * H).view(B, S, H)
    heads = split_heads(hidden, A)
    assert heads.shape == (B, A, S, D)
    for a in range(A):
        assert torch.equal(heads[:, a], hidden[:, :, a * D : (a + 1) * D])
    assert torch.equal(merge_heads(heads), hidden)


# Many heads


def pair_of_modules(dtype) -> tuple[MultiHeadAttention, nn.MultiheadAttention]:
    """Ours and PyTorch's, with the same random weights and biases."""
    torch.manual_seed(0)
    ours = MultiHeadAttention(H, A).to(dtype)
    theirs = nn.MultiheadAttention(H, A, batch_first=True).to(dtype)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(torch.randn_like(parameter) / H**0.5)
        for kind in ("weight", "bias"):
            parts = [getattr(part, kind) for part in (ours.query, ours.key, ours.value)]
            getattr(theirs, f"in_proj_{kind}").copy_(torch.cat(parts))
            getattr(theirs.out_proj, kind).copy_(getattr(ours.output, kind))
    return ours, theirs


def in_pytorchs_order(ours: list[torch.Tensor]) -> list[torch.Tensor]:
    """Gradients of query, key, value and output as PyTorch holds them: the first three in one."""
    weights, biases = ours[0::2], ours[1::2]
    return [torch.cat(weights[:3]), torch.cat(biases[:3]), weights[3], biases[3]]


@each(MASKS | BLIND_MASKS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_multi_head_attention_equals_pytorchs_in_value_and_gradient(dtype, mask):
    ours, theirs = pair_of_modules(dtype)
    hidden = numbers(B, S, H, dtype=dtype).requires_grad_()
    found, _ = ours(hidden, mask=mask)
    forbidden = None if mask is None else ~mask.expand(B, A, S, S).flatten(0, 1)
    expected, _ = theirs(hidden, hidden, hidden, attn_mask=forbidden, need_weights=False)
    same(found, expected)
    found = gradients(found, [hidden, *ours.parameters()])
    expected = gradients(expected, [hidden, *theirs.parameters()])
    for one, other in zip([found[0], *in_pytorchs_order(found[1:])], expected, strict=True):
        same(one, other)


@each(MASKS)
def test_attention_maps_equal_pytorchs_in_value_and_gradient(mask):
    ours, theirs = pair_of_modules(torch.float32)
    hidden = numbers(B, S, H).requires_grad_()
    _, found = ours(hidden, mask=mask)
    forbidden = None if mask is None else ~mask.expand(B, A, S, S).flatten(0, 1)
    _, expected = theirs(hidden, hidden, hidden, attn_mask=forbidden, average_attn_weights=False)
    assert found.shape == (B, A, S, S)
    same(found, expected)
    same(gradients(found, [hidden])[0], gradients(expected, [hidden])[0])


def test_dropout_acts_while_training_only():
    attention = MultiHeadAttention(H, A, dropout=0.5)
    hidden = numbers(B, S, H)
    (first, whole), (second, _) = attention(hidden), attention(hidden)
    assert not torch.allclose(first, second)
    same(whole.sum(-1), torch.ones(B, A, S))
    attention.eval()
    assert torch.equal(attention(hidden)[0], attention(hidden)[0])


@pytest.mark.parametrize("mask", [None, MASKS["causal and padding"]], ids=["no mask", "mask"])
def test_it_compiles_into_one_graph(mask):
    attention = MultiHeadAttention(H, A)
    compiled = torch.compile(attention, backend="eager", fullgraph=True)
    same(compiled(numbers(B, S, H), mask=mask)[0], attention(numbers(B, S, H), mask=mask)[0])


# What is refused

Q = numbers(B, A, S, D)
REFUSED = {
    "query is a list": (lambda: scaled_dot_product([[1.0]], Q, Q), "query is list"),
    "query has one axis": (lambda: scaled_dot_product(Q[0, 0, 0], Q, Q), "of 2 axes or more"),
    "sizes differ": (
        lambda: scaled_dot_product(Q, Q[..., :3], Q),
        "Axis 3 of key is 3 long, expected 4",
    ),
    "fewer values than keys": (
        lambda: scaled_dot_product(Q, Q, Q[:, :, :4]),
        "Axis 2 of value is 4 long, expected 5",
    ),
    "another batch": (lambda: scaled_dot_product(Q, Q[:1], Q), "Axis 0 of key is 1 long"),
    "an axis is missing": (lambda: scaled_dot_product(Q, Q, Q[0]), "value has 3 axes, expected 4"),
    "whole numbers": (
        lambda: scaled_dot_product(Q.long(), Q.long(), Q.long()),
        "query is of torch.int64",
    ),
    "two dtypes": (lambda: scaled_dot_product(Q, Q, Q.double()), "value is of torch.float64"),
    "mask of numbers": (
        lambda: scaled_dot_product(Q, Q, Q, mask=torch.ones(S, S)),
        "mask is of torch.float32, expected torch.bool",
    ),
    "mask is a list": (lambda: scaled_dot_product(Q, Q, Q, mask=[[True]]), "mask is of list"),
    "mask is too short": (
        lambda: scaled_dot_product(Q, Q, Q, mask=causal_mask(4)),
        r"mask has the shape \(4, 4\).*\(2, 3, 5, 5\)",
    ),
    "mask has an axis too many": (
        lambda: scaled_dot_product(Q, Q, Q, mask=BLIND[None]),
        r"mask has the shape \(1, 2, 1, 5, 5\)",
    ),
    "mask for another batch": (
        lambda: MultiHeadAttention(H, A)(numbers(3, S, H), mask=padding_mask(PADDING)),
        r"mask has the shape \(2, 1, 1, 5\).*\(3, 3, 5, 5\)",
    ),
    "padding has one axis": (
        lambda: padding_mask(PADDING[0]),
        "attention_mask has 1 axes, expected 2",
    ),
    "padding is a list": (lambda: padding_mask([[1, 0]]), "attention_mask is a list"),
    "padding is already added": (
        lambda: padding_mask(torch.tensor([[0.0, -1e9]])),
        "attention_mask is of torch.float32",
    ),
    "padding is ids": (
        lambda: padding_mask(torch.tensor([[1, 1], [1, 102]])),
        r"the value 102, expected 0 to 1(.|\n)*text 1, token 1",
    ),
    "padding of three axes": (
        lambda: padding_mask(PADDING.bool()[None]),
        "attention_mask has 3 axes",
    ),
    "no length": (lambda: causal_mask(0), "0 positions"),
    "hidden has two axes": (lambda: split_heads(Q[0, 0], 2), "hidden has 2 axes, expected 3"),
    "heads are merged": (lambda: merge_heads(Q[0]), r"heads has 3 axes.*\(B, A, S, d\)"),
    "another hidden size": (
        lambda: MultiHeadAttention(H, A)(numbers(B, S, H + 1)),
        r"Axis 2 of hidden is 13 long, expected 12.*\(any, any, 12\), that is \(B, S, H\)",
    ),
}


@pytest.mark.parametrize(("call", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_is_refused_in_words(call, words):
    with pytest.raises(DataError, match=f"(?s){words}"):
        call()


@pytest.mark.parametrize("n_heads", [5, 0, -3, 24])
def test_heads_that_do_not_divide_the_hidden_size_are_refused(n_heads):
    words = f"hidden size of 12 cannot be cut into {n_heads} heads"
    with pytest.raises(ModelError, match=words):
        MultiHeadAttention(12, n_heads)
    with pytest.raises(ModelError, match=words):
        split_heads(numbers(B, S, 12), n_heads)


@pytest.mark.parametrize("bad", [-1, 10])
def test_ids_out_of_range_are_named_with_their_place(bad):
    ids = torch.tensor([[0, 9, 3], [4, 5, bad]])
    with pytest.raises(DataError) as error:
        need_ids("input_ids", ids, 10)
    assert f"input_ids has the value {bad}, expected 0 to 9" in error.value.what
    assert error.value.where == "text 1, token 2, both counted from 0"
    need_ids("input_ids", ids[:1], 10)  # the first and the last id are inside
