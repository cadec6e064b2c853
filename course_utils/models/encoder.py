"""The encoder: blocks of attention and feed-forward around a stream of hidden states.

Vaswani et al. 2017, *Attention Is All You Need*, section 3; B is texts, S positions, H the hidden
size, A heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.errors import DataError, ModelError
from course_utils.models.attention import MultiHeadAttention
from course_utils.models.shapes import need_ids, need_shape


def sinusoidal_positions(length: int, hidden_size: int) -> Tensor:
    """Position vectors (S, H): sines in the even columns, cosines in the odd, ever slower waves.

    Vaswani et al. 2017, section 3.5. Raises `ModelError` for a hidden size that is not even, or a
    length below 1.
    """
    if length < 1 or hidden_size < 2 or hidden_size % 2:
        raise ModelError(
            f"There are no sinusoidal positions of length {length} and hidden size {hidden_size}.",
            do="Choose an even hidden size (sines and cosines are pairs) and a length above 0.",
        )
    position = torch.arange(length, dtype=torch.float64)
    even = torch.arange(0, hidden_size, 2, dtype=torch.float64)
    angle = position[:, None] / 10000 ** (even / hidden_size)  # (S, H/2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float()  # (S, H)


class Embeddings(nn.Module):
    """The sum of three learned vectors per token: which word, at which place, of which text.

    Maps `input_ids` (B, S) and `token_type_ids` (B, S), all 0 if left out, to hidden states
    (B, S, H). Devlin et al. 2019 (BERT), figure 2. `padding_id` is the word whose vector is never
    trained. Raises `DataError` for ids and lengths that have no vector.
    """

    def __init__(
        self,
        n_words: int,
        n_positions: int,
        n_types: int,
        hidden_size: int,
        *,
        padding_id: int | None = None,
        dropout: float = 0.0,
        norm_eps: float = 1e-12,
    ):
        super().__init__()
        self.words = nn.Embedding(n_words, hidden_size, padding_idx=padding_id)
        self.positions = nn.Embedding(n_positions, hidden_size)
        self.types = nn.Embedding(n_types, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        self._check(input_ids, token_type_ids)
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        places = torch.arange(input_ids.shape[1], device=input_ids.device)  # (S,)
        total = self.words(input_ids) + self.types(token_type_ids) + self.positions(places)
        return self.dropout(self.norm(total))  # (B, S, H)

    def _check(self, input_ids: Tensor, token_type_ids: Tensor | None) -> None:
        need_ids("input_ids", input_ids, self.words.num_embeddings)
        length, longest = input_ids.shape[1], self.positions.num_embeddings
        if length > longest:
            raise DataError(
                f"The texts are {length} tokens long, the model has positions for {longest}.",
                do=f"Cut them: tokenizer(texts, truncation=True, max_length={longest}).",
            )
        if token_type_ids is not None:
            n_types = self.types.num_embeddings
            need_ids("token_type_ids", token_type_ids, n_types, shape=input_ids.shape)


class FeedForward(nn.Module):
    """Two linear maps with a GELU between, for each position by itself: (B, S, H) to (B, S, H).

    The GELU is the exact one, with the error function, as in BERT. Vaswani et al. 2017, equation 2;
    Hendrycks and Gimpel 2016.
    """

    def __init__(self, hidden_size: int, intermediate_size: int):
        super().__init__()
        self.expand = nn.Linear(hidden_size, intermediate_size)
        self.contract = nn.Linear(intermediate_size, hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.contract(F.gelu(self.expand(hidden)))


class EncoderBlock(nn.Module):
    """One block: attention, then feed-forward, each added to the stream of hidden states.

    Maps hidden states (B, S, H) to hidden states (B, S, H) and attention weights (B, A, S, S).
    LayerNorm comes after each addition (post-LN: Vaswani et al. 2017, BERT) or, with `pre_norm`,
    before attention and feed-forward, inside the branch (Xiong et al. 2020). `dropout` acts on the
    attention weights and on what each branch adds. Raises what `MultiHeadAttention` raises.
    """

    def __init__(
        self,
        hidden_size: int,
        n_heads: int,
        intermediate_size: int,
        *,
        dropout: float = 0.0,
        norm_eps: float = 1e-12,
        pre_norm: bool = False,
    ):
        super().__init__()
        self.hidden_size, self.pre_norm = hidden_size, pre_norm
        self.attention = MultiHeadAttention(hidden_size, n_heads, dropout=dropout)
        self.attention_norm = nn.LayerNorm(hidden_size, eps=norm_eps)
        self.feed_forward = FeedForward(hidden_size, intermediate_size)
        self.feed_forward_norm = nn.LayerNorm(hidden_size, eps=norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, *, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        need_shape("hidden", hidden, (None, None, self.hidden_size), axes="(B, S, H)")
        if self.pre_norm:
            change, weights = self.attention(self.attention_norm(hidden), mask=mask)
            hidden = hidden + self.dropout(change)
            change = self.feed_forward(self.feed_forward_norm(hidden))
            hidden = hidden + self.dropout(change)
        else:
            change, weights = self.attention(hidden, mask=mask)
            hidden = self.attention_norm(hidden + self.dropout(change))
            change = self.feed_forward(hidden)
            hidden = self.feed_forward_norm(hidden + self.dropout(change))
        return hidden, weights  # (B, S, H), (B, A, S, S)


class Encoder(nn.Module):
    """`n_layers` blocks, one after the other.

    Maps hidden states (B, S, H) to a list of `n_layers` + 1 hidden states, of which the first is
    the input, and a list of `n_layers` attention weights (B, A, S, S). With `pre_norm` one more
    LayerNorm closes the stream and gives the last hidden state (Xiong et al. 2020, section 3).
    """

    def __init__(
        self,
        n_layers: int,
        hidden_size: int,
        n_heads: int,
        intermediate_size: int,
        *,
        dropout: float = 0.0,
        norm_eps: float = 1e-12,
        pre_norm: bool = False,
    ):
        super().__init__()
        options = {"dropout": dropout, "norm_eps": norm_eps, "pre_norm": pre_norm}
        self.blocks = nn.ModuleList(
            EncoderBlock(hidden_size, n_heads, intermediate_size, **options)
            for _ in range(n_layers)
        )
        self.final_norm = nn.LayerNorm(hidden_size, eps=norm_eps) if pre_norm else nn.Identity()

    def forward(
        self, hidden: Tensor, *, mask: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        hidden_states, attentions = [hidden], []
        for block in self.blocks:
            hidden, weights = block(hidden, mask=mask)
            hidden_states.append(hidden)
            attentions.append(weights)
        hidden_states[-1] = self.final_norm(hidden)
        return hidden_states, attentions
