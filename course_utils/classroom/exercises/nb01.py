"""Notebook 01, Transformer basics: masks, attention, heads, LayerNorm, the block, positions."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.classroom.checks import exercise


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Who may look where


def _mask_cases() -> Iterator[tuple[Tensor]]:
    yield (torch.tensor([[1, 1, 0]]),)
    yield (torch.tensor([[1, 1, 1, 1]]),)
    yield (torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]),)


@exercise(
    cases=_mask_cases,
    hints=(
        "Two things must hold at once: the one that is looked at is a token (padding), and it does "
        "not stand to the right of the one that looks (causal). Make one mask for each.",
        "In a mask, rows look and columns are looked at. Padding is a property of the columns: "
        "`attention_mask.bool()[:, None, :]` is (B, 1, S). `torch.ones(S, S).tril().bool()` is "
        "True at and below the diagonal.",
        "`&` of a (B, 1, S) and an (S, S) is a (B, S, S). One more axis for the heads: "
        "`[:, None]` in front of the last two.",
    ),
)
def may_look(attention_mask: Tensor) -> Tensor:
    """A mask (B, 1, S, S), True where a token may look: at no padding, and not to its right.

    `attention_mask` is (B, S), 1 for a token and 0 for padding.
    """
    length = attention_mask.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return attention_mask.bool()[:, None, None, :] & causal


def _look(attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """The padding by column (B, 1, 1, S) and the causal mask (S, S), for the mistakes below."""
    length = attention_mask.shape[1]
    return attention_mask.bool()[:, None, None, :], torch.ones(length, length).tril().bool()


@may_look.mistake(
    "The mask is the wrong way round: it is True where a token may *not* look. In this course True "
    "means “may look” (nn.MultiheadAttention has it the other way)."
)
def mask_is_inverted(attention_mask):
    token, causal = _look(attention_mask)
    return ~(token & causal)


@may_look.mistake(
    "You mask the rows of the padding, so padding may not look, but everybody may look at padding. "
    "Padding belongs to the columns: those who are looked at. Put the new axis before S: "
    "[:, None, :], not [:, :, None]."
)
def padding_on_the_rows(attention_mask):
    token, causal = _look(attention_mask)
    return token.transpose(-2, -1) & causal


@may_look.mistake(
    "Your tokens look to the right: the triangle is the upper one. What came before stands in the "
    "columns left of the diagonal: tril, not triu."
)
def looks_to_the_right(attention_mask):
    token, causal = _look(attention_mask)
    return token & causal.T


@may_look.mistake(
    "The diagonal is missing: a token may look at itself. Keep it: tril() without diagonal=-1."
)
def not_at_itself(attention_mask):
    token, causal = _look(attention_mask)
    return token & causal.tril(-1)


@may_look.mistake(
    "You join the two masks with “or”. Then it is enough to be a token *or* to stand on the left. "
    "Both must hold: &."
)
def joined_with_or(attention_mask):
    token, causal = _look(attention_mask)
    return token | causal


@may_look.mistake(
    "Padding is hidden, and the right is not: the causal half is missing. "
    "Combine with torch.ones(S, S).tril().bool()."
)
def without_the_causal_half(attention_mask):
    token, causal = _look(attention_mask)
    return token.expand(-1, 1, *causal.shape)


@may_look.mistake(
    "The right is hidden, and padding is not: attention_mask is not used. Hide its zeros by column."
)
def without_the_padding_half(attention_mask):
    _, causal = _look(attention_mask)
    return causal.expand(len(attention_mask), 1, *causal.shape)


@may_look.mistake(
    "The axis for the heads is missing: (B, S, S) would be lined up with the heads (A, S, S) and "
    "not with the texts. Make it (B, 1, S, S)."
)
def no_axis_for_the_heads(attention_mask):
    token, causal = _look(attention_mask)
    return token[:, 0] & causal


# Attention


def _attention_cases() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    def some(*shape: int, width: int, values: int) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys = shape[-2:]
        batch = shape[:-2]
        return (
            _normal(*batch, queries, width, seed=1),
            _normal(*batch, keys, width, seed=2),
            _normal(*batch, keys, values, seed=3),
        )

    yield *some(2, 3, width=3, values=2), torch.tensor([[True, True, False], [True, True, True]])
    nowhere = torch.tensor([[True, True, False], [False, False, False], [True, False, False]])
    yield *some(3, 3, width=2, values=3), nowhere
    square = some(2, 4, 4, width=8, values=8)
    yield *square, torch.tensor([[True, True, True, False]]).expand(4, 4)
    texts = some(2, 3, 5, 5, width=4, values=4)
    yield *texts, torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()[:, None, None, :]


@exercise(
    cases=_attention_cases,
    tolerance=1e-4,
    hints=(
        "Five steps: scores of every query with every key; divide; hide; softmax; average the "
        "values. The shapes say in which order to multiply: (…, Sq, d) and (…, Sk, d) to "
        "(…, Sq, Sk).",
        "`query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])` are the scores. "
        "`scores.masked_fill(~mask, …)` hides *before* the softmax, which runs on the last axis.",
        "Fill with float('-inf'), and a row that is hidden as a whole becomes NaN. Turn the "
        "weights of hidden places into zeros after the softmax: `weights.masked_fill(~mask, 0.0)`.",
    ),
)
def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The context (..., Sq, dv): for every query the weighted average of the values it may see.

    `query` is (..., Sq, d), `key` (..., Sk, d), `value` (..., Sk, dv); `mask` is True where a query
    may look, and broadcasts to (..., Sq, Sk). A query that may look nowhere gets zeros.
    """
    return _attend(query, key, value, mask)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    *,
    scale: Callable[[int], float] = math.sqrt,
    dim: int = -1,
    inverted: bool = False,
    hidden: float = -math.inf,
    zeros: bool = True,
) -> Tensor:
    """Attention, right by default; each option is a place at which it can go wrong."""
    mask = ~mask if inverted else mask
    scores = query @ key.transpose(-2, -1) / scale(query.shape[-1])
    weights = scores.masked_fill(~mask, hidden).softmax(dim)
    return (weights.masked_fill(~mask, 0.0) if zeros else weights) @ value


_SLIPS = {
    "no_root_d": (
        "√d is missing: the scores go into the softmax as they are. Their variance grows with d, "
        "and so does the largest weight. Divide them by math.sqrt(query.shape[-1]).",
        {"scale": lambda d: 1.0},
    ),
    "divides_by_d": (
        "You divide by d; it must be √d. The *variance* of a score is d, so its size is √d. "
        "Divided by d, the scores come out too small and the weights too even.",
        {"scale": float},
    ),
    "softmax_over_the_queries": (
        "Your softmax runs down the queries (axis −2), so the weights of a *column* add up to 1. "
        "Each query shares out its own attention: along the keys, the last axis, dim=-1.",
        {"dim": -2},
    ),
    "mask_the_wrong_way_round": (
        "The mask is used the wrong way round: you hide what may be seen. It is True where a query "
        "*may* look: masked_fill(~mask, …).",
        {"inverted": True},
    ),
    "": ("", {}),
}
# What becomes of a query that may look nowhere is a slip of its own, alone or with one of these.
_NOWHERE = {
    "": ("", {}),
    "nan_where_all_is_hidden": (
        "A query that may look nowhere gets NaN: the softmax of a row of nothing but −∞ is 0/0, "
        "and one such row poisons every gradient. After the softmax, set the weights of hidden "
        "places to 0.",
        {"zeros": False},
    ),
    "average_where_all_is_hidden": (
        "A query that may look nowhere gets the plain average of all values, padding included: "
        "where all scores are equally low, the softmax is uniform. After the softmax, set the "
        "weights of hidden places to 0.",
        {"zeros": False, "hidden": -1e9},
    ),
}


def _add_slips() -> None:
    for first, (why, options) in _SLIPS.items():
        for second, (also, more) in _NOWHERE.items():
            if first or second:
                slip = functools.partial(_attend, **options, **more)
                slip.__name__ = "_and_".join(filter(None, (first, second)))
                attention.mistake(" And one thing more. ".join(filter(None, (why, also))))(slip)


_add_slips()


@attention.mistake(
    "You hide after the softmax: the weights of a row no longer add up to 1, because what the "
    "hidden places had is lost. Hide the scores first, with −∞; the softmax then shares out 1 "
    "among the others."
)
def masked_after_the_softmax(query, key, value, mask):
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    return (scores.softmax(-1) * mask) @ value


@attention.mistake(
    "You set the scores of hidden places to 0. But exp(0) is 1: the softmax gives them a weight "
    "like any other. Only a score of −∞ has the weight 0."
)
def masked_with_zero(query, key, value, mask):
    return _attend(query, key, value, mask, hidden=0.0, zeros=False)


@attention.mistake("The mask is not used: every query sees everything, padding included.")
def mask_not_used(query, key, value, mask):
    return _attend(query, key, value, torch.ones_like(mask))


@attention.mistake(
    "The softmax is missing: you average with the raw scores, which may be negative and add up to "
    "anything."
)
def without_softmax(query, key, value, mask):
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    return scores.masked_fill(~mask, 0.0) @ value


@attention.mistake(
    "You return the weights. They say where each query looks; what it sees is `weights @ value`."
)
def returns_the_weights(query, key, value, mask):
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    return scores.masked_fill(~mask, -math.inf).softmax(-1).masked_fill(~mask, 0.0)


# Heads


def _split_cases() -> Iterator[tuple[Tensor, int]]:
    yield torch.arange(8.0).reshape(1, 2, 4), 2
    yield torch.arange(24.0).reshape(1, 4, 6), 3
    yield _normal(2, 3, 8), 2  # two texts, three tokens, two heads of four
    yield _normal(2, 5, 12), 4
    yield _normal(3, 4, 6), 1


@exercise(
    cases=_split_cases,
    hints=(
        "Cut the last axis first. H numbers become A groups of d: where does the new axis stand "
        "in the shape at that moment?",
        "`hidden.view(B, S, A, d)` cuts every token's vector into A pieces that lie side by side. "
        "The heads are now the third axis; they should be the second.",
        "Two axes change places: `.transpose(1, 2)`.",
    ),
)
def split_heads(hidden: Tensor, n_heads: int) -> Tensor:
    """The heads (B, A, S, d): each token's vector cut into `n_heads` pieces, H = A * d.

    `hidden` is (B, S, H).
    """
    texts, tokens, size = hidden.shape
    return hidden.view(texts, tokens, n_heads, size // n_heads).transpose(1, 2)


@split_heads.mistake(
    "The shape is right and the numbers are not: view(B, A, S, d) without a transpose cuts the "
    "*sequence* into pieces, so a head gets numbers of several tokens. Cut the last axis, "
    "view(B, S, A, d), then swap the two axes in the middle."
)
def view_without_transpose(hidden, n_heads):
    texts, tokens, size = hidden.shape
    return hidden.reshape(texts, n_heads, tokens, size // n_heads)


@split_heads.mistake(
    "Your heads take every A-th number: you cut into (d, A). Head 0 owns the *first* d numbers of "
    "a vector, head 1 the next d: view(B, S, A, d)."
)
def heads_interleaved(hidden, n_heads):
    texts, tokens, size = hidden.shape
    return hidden.view(texts, tokens, size // n_heads, n_heads).permute(0, 3, 1, 2)


@split_heads.mistake(
    "The cut is right, the transpose is missing: in (B, S, A, d) a matrix product would mix the "
    "heads of one token. In (B, A, S, d) it works on the tokens of one head."
)
def heads_left_behind(hidden, n_heads):
    return hidden.unflatten(-1, (n_heads, -1))


@split_heads.mistake(
    "The last two axes are swapped: (B, A, d, S). Keys are turned this way for the scores, but "
    "only there; a head is (S, d), one row per token."
)
def tokens_last(hidden, n_heads):
    return hidden.unflatten(-1, (n_heads, -1)).permute(0, 2, 3, 1)


@split_heads.mistake(
    "n_heads and the size of a head have changed places: you make H / A heads of size A. "
    "`n_heads` is the number of heads, and H / n_heads the size of each."
)
def heads_and_size_swapped(hidden, n_heads):
    return hidden.unflatten(-1, (-1, n_heads)).transpose(1, 2)


def _merge_cases() -> Iterator[tuple[Tensor]]:
    yield (torch.arange(8.0).reshape(1, 2, 2, 2),)
    yield (torch.arange(24.0).reshape(1, 3, 4, 2),)
    yield (_normal(2, 4, 3, 5),)
    yield (_normal(3, 1, 4, 6),)


@exercise(
    cases=_merge_cases,
    hints=(
        "Do what split_heads did, backwards and in the opposite order.",
        "First the heads go back behind the tokens: `heads.transpose(1, 2)` is (B, S, A, d).",
        "Then the last two axes become one: `.reshape(B, S, A * d)`, or `.flatten(2)`. "
        "`.view` refuses here, because a transposed tensor does not lie in one piece.",
    ),
)
def merge_heads(heads: Tensor) -> Tensor:
    """Hidden states (B, S, H): the pieces of each token side by side again, H = A * d.

    `heads` is (B, A, S, d).
    """
    return heads.transpose(1, 2).flatten(2)


@merge_heads.mistake(
    "The heads are not transposed back: reshape reads the numbers head by head, so a row now mixes "
    "several tokens. The shape is right and the content is not. Transpose first: (B, S, A, d)."
)
def not_transposed_back(heads):
    texts, n_heads, tokens, size = heads.shape
    return heads.reshape(texts, tokens, n_heads * size)


@merge_heads.mistake(
    "The numbers of the heads are interleaved: (d, A) instead of (A, d). Each head's d numbers "
    "stay together: transpose(1, 2), which gives (B, S, A, d), then flatten."
)
def merged_interleaved(heads):
    return heads.permute(0, 2, 3, 1).flatten(2)


@merge_heads.mistake(
    "You stop half-way: (B, S, A, d) still has an axis for the heads. Flatten the last two."
)
def still_in_pieces(heads):
    return heads.transpose(1, 2)


@merge_heads.mistake(
    "You put the heads one after the other along the sequence: (B, A·S, d). They belong side by "
    "side in each token's vector: (B, S, A·d)."
)
def heads_along_the_sequence(heads):
    return heads.flatten(1, 2)


@merge_heads.mistake(
    "You average the heads. That keeps d of the A·d numbers: what the heads found is mixed before "
    "the output matrix can choose. Put them side by side."
)
def averages_the_heads(heads):
    return heads.mean(dim=1)


# LayerNorm


def _norm_cases() -> Iterator[tuple[Tensor, Tensor, Tensor, float]]:
    yield torch.tensor([[[1.0, 2.0, 6.0]]]), torch.ones(3), torch.zeros(3), 1e-12
    weight, bias = torch.tensor([1.0, 2.0, 0.5, -1.0]), torch.tensor([0.0, 0.5, -0.5, 1.0])
    yield 3 * _normal(2, 3, 4) + 1, weight, bias, 1e-12
    yield 0.05 * _normal(2, 3, 4, seed=1), weight, bias, 1e-2  # epsilon and variance alike
    yield torch.full((1, 2, 4), 2.5), weight, bias, 1e-5  # no variance at all


@exercise(
    cases=_norm_cases,
    tolerance=1e-4,
    hints=(
        "Every token is normalised by itself: mean and variance run along the last axis only, and "
        "keepdim=True lets them be subtracted from `hidden`.",
        "PyTorch's `var` divides by n − 1 unless it is told otherwise. LayerNorm divides by n: "
        "`hidden.var(-1, keepdim=True, correction=0)`.",
        "`(hidden − mean) / (variance + eps).sqrt()`: epsilon joins the variance *inside* the "
        "root. Then weight and bias.",
    ),
)
def layer_norm(hidden: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Each token's vector with mean 0 and variance 1, then times `weight` plus `bias`: (B, S, H).

    `hidden` is (B, S, H), `weight` and `bias` are (H,); `eps` is added to the variance.
    """
    return F.layer_norm(hidden, hidden.shape[-1:], weight, bias, eps)


def _normalised(
    hidden: Tensor, eps: float, *, dim: int | tuple[int, ...] = -1, correction: int = 0
) -> Tensor:
    mean = hidden.mean(dim, keepdim=True)
    return (hidden - mean) / (hidden.var(dim, keepdim=True, correction=correction) + eps).sqrt()


@layer_norm.mistake(
    "Your variance is the unbiased one: var() divides by n − 1. LayerNorm divides by n: "
    "correction=0. With 3 numbers the difference is large, with 768 it hides in the fourth digit."
)
def unbiased_variance(hidden, weight, bias, eps):
    return _normalised(hidden, eps, correction=1) * weight + bias


@layer_norm.mistake(
    "Epsilon is outside the root: std + eps. LayerNorm adds it to the variance: "
    "(variance + eps).sqrt(). Where the variance is small the two differ."
)
def epsilon_outside_the_root(hidden, weight, bias, eps):
    centred = hidden - hidden.mean(-1, keepdim=True)
    return centred / (hidden.var(-1, keepdim=True, correction=0).sqrt() + eps) * weight + bias


@layer_norm.mistake(
    "Two slips at once: std() divides by n − 1, and epsilon is outside the root. Take the variance "
    "with correction=0, add eps, then take the root."
)
def plain_std_plus_epsilon(hidden, weight, bias, eps):
    centred = hidden - hidden.mean(-1, keepdim=True)
    return centred / (hidden.std(-1, keepdim=True) + eps) * weight + bias


@layer_norm.mistake(
    "Epsilon is not used: a vector of equal numbers has variance 0, and 0/0 is NaN. "
    "Add it to the variance, inside the root."
)
def without_epsilon(hidden, weight, bias, eps):
    return _normalised(hidden, 0.0) * weight + bias


@layer_norm.mistake(
    "Two slips at once: std() divides by n − 1, and epsilon is not used, so that a vector of equal "
    "numbers gives 0/0. Take the variance with correction=0, add eps, then take the root."
)
def plain_std(hidden, weight, bias, eps):
    return _normalised(hidden, 0.0, correction=1) * weight + bias


@layer_norm.mistake(
    "The root is missing: you divide by the variance. Dividing by its root gives variance 1."
)
def divides_by_the_variance(hidden, weight, bias, eps):
    centred = hidden - hidden.mean(-1, keepdim=True)
    return centred / (hidden.var(-1, keepdim=True, correction=0) + eps) * weight + bias


@layer_norm.mistake(
    "You normalise down the sequence (axis 1): each feature over all tokens. LayerNorm takes each "
    "token by itself, along the last axis, so that neighbours and padding do not change it."
)
def over_the_tokens(hidden, weight, bias, eps):
    return _normalised(hidden, eps, dim=1) * weight + bias


@layer_norm.mistake(
    "You normalise over texts (axis 0), as BatchNorm does: a text's output would depend on what "
    "else is in its batch. LayerNorm works along the last axis."
)
def over_the_texts(hidden, weight, bias, eps):
    return _normalised(hidden, eps, dim=0) * weight + bias


@layer_norm.mistake(
    "Your mean and variance are those of the whole tensor. Every token has its own: give them "
    "dim=-1 and keepdim=True."
)
def over_everything(hidden, weight, bias, eps):
    return _normalised(hidden, eps, dim=(0, 1, 2)) * weight + bias


@layer_norm.mistake(
    "The mean is not subtracted. What you have is close to RMSNorm, another norm; LayerNorm "
    "centres first."
)
def not_centred(hidden, weight, bias, eps):
    return hidden / (hidden.var(-1, keepdim=True, correction=0) + eps).sqrt() * weight + bias


@layer_norm.mistake(
    "Weight and bias are not used. They let the model undo what the norm did where that helps: "
    "times weight, plus bias."
)
def without_weight_and_bias(hidden, weight, bias, eps):
    return _normalised(hidden, eps)


# The block


def _norm(hidden: Tensor) -> Tensor:
    return _normalised(hidden, 1e-12)


def _block_cases() -> Iterator[tuple[Tensor, Callable, Callable, Callable, Callable]]:
    def attention(hidden: Tensor) -> Tensor:  # mixes the tokens, as attention does
        return hidden.cumsum(1) / 2 - 1

    def feed_forward(hidden: Tensor) -> Tensor:  # works on each token by itself
        return hidden.square() - 0.5 * hidden

    def first_norm(hidden: Tensor) -> Tensor:
        return 2 * _norm(hidden) + 0.5

    def second_norm(hidden: Tensor) -> Tensor:
        return 0.5 * _norm(hidden) - 1

    parts = attention, first_norm, feed_forward, second_norm
    yield torch.tensor([[[1.0, 2.0, 4.0], [0.0, 3.0, -1.0]]]), *parts
    yield _normal(2, 3, 4), *parts


@exercise(
    cases=_block_cases,
    tolerance=1e-4,
    hints=(
        "Two times the same step: a part computes a change, the change is added to the stream, and "
        "a norm follows.",
        "The first step is `first_norm(hidden + attention(hidden))`. Keep its result under the "
        "name hidden.",
        "The second step does the same with feed_forward and second_norm, and starts from what the "
        "first returned.",
    ),
)
def encoder_block(
    hidden: Tensor,
    attention: Callable[[Tensor], Tensor],
    first_norm: Callable[[Tensor], Tensor],
    feed_forward: Callable[[Tensor], Tensor],
    second_norm: Callable[[Tensor], Tensor],
) -> Tensor:
    """What a post-LN block makes of `hidden` (B, S, H); the four parts are functions."""
    hidden = first_norm(hidden + attention(hidden))
    return second_norm(hidden + feed_forward(hidden))


@encoder_block.mistake(
    "The residual connections are missing: each part *replaces* the stream. A part computes a "
    "change that is added: hidden + attention(hidden)."
)
def no_residual(hidden, attention, first_norm, feed_forward, second_norm):
    return second_norm(feed_forward(first_norm(attention(hidden))))


@encoder_block.mistake(
    "This is a pre-LN block: the norms stand before the parts. In BERT, as in the first "
    "Transformer, the norm comes after the addition."
)
def norm_before_the_parts(hidden, attention, first_norm, feed_forward, second_norm):
    hidden = hidden + attention(first_norm(hidden))
    return hidden + feed_forward(second_norm(hidden))


@encoder_block.mistake(
    "You normalise the change and then add it: hidden + norm(attention(hidden)). The norm takes "
    "the sum: norm(hidden + attention(hidden))."
)
def norm_of_the_change(hidden, attention, first_norm, feed_forward, second_norm):
    hidden = hidden + first_norm(attention(hidden))
    return hidden + second_norm(feed_forward(hidden))


@encoder_block.mistake(
    "The second residual starts from the block's input. It must start from what the first step "
    "returned, or all that attention found is left out of the stream."
)
def second_residual_from_the_input(hidden, attention, first_norm, feed_forward, second_norm):
    return second_norm(hidden + feed_forward(first_norm(hidden + attention(hidden))))


@encoder_block.mistake(
    "Attention and feed-forward both read the block's input. In this block they work one after the "
    "other: the feed-forward reads what attention has changed."
)
def side_by_side(hidden, attention, first_norm, feed_forward, second_norm):
    return second_norm(first_norm(hidden + attention(hidden)) + feed_forward(hidden))


@encoder_block.mistake("Both steps use the first norm. The second has weights of its own.")
def one_norm_twice(hidden, attention, first_norm, feed_forward, second_norm):
    hidden = first_norm(hidden + attention(hidden))
    return first_norm(hidden + feed_forward(hidden))


@encoder_block.mistake(
    "Feed-forward comes before attention. First the tokens look at each other, then each works on "
    "what it has seen."
)
def feed_forward_first(hidden, attention, first_norm, feed_forward, second_norm):
    hidden = first_norm(hidden + feed_forward(hidden))
    return second_norm(hidden + attention(hidden))


# Positions


def _position_cases() -> Iterator[tuple[int, int]]:
    yield 2, 4
    yield 4, 6
    yield 50, 16


@exercise(
    cases=_position_cases,
    tolerance=1e-4,
    hints=(
        "Columns come in pairs: pair i has one speed, its first column is the sine of it and its "
        "second the cosine. There are H/2 speeds.",
        "`even = torch.arange(0, H, 2)` are the numbers 2i. The angles are "
        "`position[:, None] / 10000 ** (even / H)`: one row per position, one column per pair.",
        "Interleave the two: make a tensor of zeros (S, H) and fill `[:, 0::2]` with the sines and "
        "`[:, 1::2]` with the cosines.",
    ),
)
def sinusoidal_positions(length: int, hidden_size: int) -> Tensor:
    """Position vectors (S, H): sin(p / 10000^(2i/H)) in column 2i, the cosine in column 2i + 1.

    p is the position, from 0 on. Vaswani et al. 2017, section 3.5.
    """
    angles = _angles(length, hidden_size)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def _angles(
    length: int, hidden_size: int, *, base: float = 10000.0, first: int = 0, factor: float = 1.0
) -> Tensor:
    """The angles (S, H/2) whose sines and cosines are the positions."""
    position = torch.arange(first, first + length, dtype=torch.float32)
    even = torch.arange(0, hidden_size, 2)
    return position[:, None] / base ** (factor * even / hidden_size)


def _in_pairs(sines: Tensor, cosines: Tensor) -> Tensor:
    return torch.stack([sines, cosines], dim=-1).flatten(1)


@sinusoidal_positions.mistake(
    "All sines stand on the left and all cosines on the right. That works as well (some libraries "
    "do it), but it is not the paper's order: sine and cosine of one speed stand side by side."
)
def halves_side_by_side(length, hidden_size):
    angles = _angles(length, hidden_size)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@sinusoidal_positions.mistake(
    "Sine and cosine have changed places: the even columns, 0, 2, 4, …, hold the sines."
)
def cosine_first(length, hidden_size):
    angles = _angles(length, hidden_size)
    return _in_pairs(angles.cos(), angles.sin())


@sinusoidal_positions.mistake(
    "Every column has a speed of its own: the exponent uses the column's number. A pair shares one "
    "speed, that of its even column 2i."
)
def a_speed_for_every_column(length, hidden_size):
    column = torch.arange(hidden_size)
    angles = torch.arange(length)[:, None] / 10000.0 ** (column / hidden_size)
    return torch.where(column % 2 == 0, angles.sin(), angles.cos())


@sinusoidal_positions.mistake(
    "The exponent is i/H: the factor 2 is missing, and the waves slow down half as fast as they "
    "should. It is 2i/H, and 2i is the number of the even column."
)
def exponent_without_the_two(length, hidden_size):
    angles = _angles(length, hidden_size, factor=0.5)
    return _in_pairs(angles.sin(), angles.cos())


@sinusoidal_positions.mistake("The base is 1 000; the paper's is 10 000.")
def base_of_a_thousand(length, hidden_size):
    angles = _angles(length, hidden_size, base=1000.0)
    return _in_pairs(angles.sin(), angles.cos())


@sinusoidal_positions.mistake(
    "You multiply the position by 10000^(2i/H) instead of dividing: the waves get faster from pair "
    "to pair, and neighbours have nothing in common."
)
def multiplies_instead_of_dividing(length, hidden_size):
    angles = _angles(length, hidden_size, factor=-1.0)
    return _in_pairs(angles.sin(), angles.cos())
