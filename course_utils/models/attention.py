"""Attention: each position looks at all positions and takes a weighted average of what it sees.

Vaswani et al. 2017, *Attention Is All You Need*, section 3.2. In the shapes, B is texts, A heads,
S positions, H the hidden size and d = H / A the size of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.errors import DataError, ModelError
from course_utils.models.shapes import need_ids, need_shape


def scaled_dot_product(
    query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None = None, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The context (..., Sq, dv) and the weights (..., Sq, Sk) with which values were averaged.

    `query` is (..., Sq, d), `key` (..., Sk, d), `value` (..., Sk, dv). `mask` is boolean, True
    where a query may look at a key, and broadcasts to (..., Sq, Sk). A query that may look nowhere
    has weights and a context of zero. `dropout` is the share of weights left out at random.
    Vaswani et al. 2017, equation 1. Raises `DataError` when shapes or dtypes do not fit.
    """
    _check_attention(query, key, value, mask)
    scale = query.shape[-1] ** -0.5  # 1/√d
    scores = query @ key.transpose(-2, -1) * scale  # (..., Sq, Sk)
    if mask is not None:  # the lowest number, not -inf: the softmax of a row of -inf is NaN
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1)
    if mask is not None:  # a row without any key is uniform now, and should be zero
        weights = weights.masked_fill(~mask, 0.0)
    context = F.dropout(weights, dropout) @ value  # (..., Sq, dv)
    return context, weights


def padding_mask(attention_mask: Tensor) -> Tensor:
    """A mask (B, 1, 1, S), True at tokens: nobody looks at padding, in any head.

    `attention_mask` is (B, S), 1 for a token and 0 for padding, as tokenizers return it. Raises
    `DataError` for another shape, or values other than 0 and 1.
    """
    if isinstance(attention_mask, Tensor) and attention_mask.dtype == torch.bool:
        need_shape("attention_mask", attention_mask, (None, None), axes="(B, S)")
    else:
        need_ids("attention_mask", attention_mask, 2)
    return attention_mask.bool()[:, None, None, :]  # (B, 1, 1, S)


def causal_mask(length: int) -> Tensor:
    """A mask (S, S), True at and below the diagonal: each position sees itself and what was before.

    Raises `DataError` for a length below 1.
    """
    if length < 1:
        raise DataError(f"A causal mask for {length} positions.", do="Give a length of 1 or more.")
    return torch.ones(length, length, dtype=torch.bool).tril()


def split_heads(hidden: Tensor, n_heads: int) -> Tensor:
    """The heads (B, A, S, d): `hidden` (B, S, H) with its last axis cut into A pieces.

    Raises `DataError` for another shape, `ModelError` when H is not a multiple of A.
    """
    need_shape("hidden", hidden, (None, None, None), axes="(B, S, H)")
    _check_heads(hidden.shape[-1], n_heads)
    return hidden.unflatten(-1, (n_heads, -1)).transpose(1, 2)  # (B, S, A, d) -> (B, A, S, d)


def merge_heads(heads: Tensor) -> Tensor:
    """Hidden states (B, S, H): the pieces of each position side by side again, H = A * d.

    `heads` is (B, A, S, d); undoes `split_heads`. Raises `DataError` for another shape.
    """
    need_shape("heads", heads, (None, None, None, None), axes="(B, A, S, d)")
    return heads.transpose(1, 2).flatten(2)  # (B, S, A, d) -> (B, S, H)


class MultiHeadAttention(nn.Module):
    """Self-attention in `n_heads` heads of size d = `hidden_size` / `n_heads` each.

    Maps hidden states (B, S, H) to hidden states (B, S, H) and the weights (B, A, S, S). `dropout`
    acts on the weights while training; the weights that are returned are whole. Vaswani et al.
    2017, section 3.2.2. Raises `ModelError` when the hidden size is not a multiple of the heads.
    """

    def __init__(self, hidden_size: int, n_heads: int, *, dropout: float = 0.0):
        super().__init__()
        _check_heads(hidden_size, n_heads)
        self.hidden_size, self.n_heads, self.dropout = hidden_size, n_heads, dropout
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden: Tensor, *, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        need_shape("hidden", hidden, (None, None, self.hidden_size), axes="(B, S, H)")
        query = split_heads(self.query(hidden), self.n_heads)  # (B, A, S, d)
        key = split_heads(self.key(hidden), self.n_heads)
        value = split_heads(self.value(hidden), self.n_heads)
        dropout = self.dropout if self.training else 0.0
        context, weights = scaled_dot_product(query, key, value, mask=mask, dropout=dropout)
        return self.output(merge_heads(context)), weights  # (B, S, H), (B, A, S, S)


def _check_heads(hidden_size: int, n_heads: int) -> None:
    if n_heads < 1 or hidden_size % n_heads:
        raise ModelError(
            f"A hidden size of {hidden_size} cannot be cut into {n_heads} heads of equal size.",
            do="Choose a number of heads that divides the hidden size.",
        )


def _check_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> None:
    if not isinstance(query, Tensor) or query.dim() < 2:
        found = tuple(query.shape) if isinstance(query, Tensor) else type(query).__name__
        raise DataError(f"query is {found}, expected a tensor (..., Sq, d) of 2 axes or more.")
    *batch, n_queries, size = query.shape
    need_shape("key", key, (*batch, None, size), axes="(..., Sk, d) with the query's d")
    n_keys = key.shape[-2]
    need_shape("value", value, (*batch, n_keys, None), axes="(..., Sk, dv) with the key's Sk")
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if not tensor.is_floating_point() or tensor.dtype != query.dtype:
            raise DataError(
                f"{name} is of {tensor.dtype}, the query of {query.dtype}: expected one floating "
                "dtype for query, key and value.",
                do=f"Convert it, for example with {name}.float().",
            )
    if mask is not None:
        _check_mask(mask, (*batch, n_queries, n_keys))


def _check_mask(mask: Tensor, scores_shape: tuple[int, ...]) -> None:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise DataError(
            f"mask is of {kind}, expected torch.bool: True where a query may look.",
            do="Make it with padding_mask(attention_mask) or causal_mask(length), or call .bool().",
        )
    spare = len(scores_shape) - mask.dim()  # axes in front that the mask leaves out
    if spare < 0 or any(
        found not in (1, n) for found, n in zip(mask.shape, scores_shape[spare:], strict=True)
    ):
        raise DataError(
            f"mask has the shape {tuple(mask.shape)}, expected one that broadcasts to "
            f"(..., Sq, Sk), here {scores_shape}.",
            do="Its axes, counted from the last, are as long as those of the scores, or 1.",
        )
