"""The smallest whole model: embeddings, an encoder, and a head that names a token."""

from __future__ import annotations

from torch import Tensor, nn

from course_utils.models.attention import need_ids, need_shape
from course_utils.models.encoder import Encoder


class Reader(nn.Module):
    """Names a token for every position: `input_ids` (B, S) to logits (B, S, V).

    The second value is a list of attention weights, one (B, A, S, S) per layer. `mask` says who may
    look where, see `scaled_dot_product`. Positions are learned vectors, as in BERT, or with
    `positions=False` there are none. The encoder starts from Xavier's initialisation (Glorot and
    Bengio 2010). Raises `DataError` for ids outside the vocabulary and for another length.
    """

    def __init__(
        self,
        vocab_size: int,
        length: int,
        *,
        n_layers: int = 2,
        n_heads: int = 2,
        hidden_size: int = 64,
        positions: bool = True,
    ):
        super().__init__()
        self.vocab_size, self.length = vocab_size, length
        self.words = nn.Embedding(vocab_size, hidden_size)
        self.positions = nn.Embedding(length, hidden_size) if positions else None
        self.encoder = Encoder(n_layers, hidden_size, n_heads, 2 * hidden_size)
        self.head = nn.Linear(hidden_size, vocab_size)
        for weight in self.encoder.parameters():
            if weight.dim() > 1:
                nn.init.xavier_uniform_(weight)

    def forward(
        self, input_ids: Tensor, *, mask: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        need_shape("input_ids", input_ids, (None, self.length), axes="(B, S)")
        need_ids("input_ids", input_ids, self.vocab_size)
        hidden = self.words(input_ids)  # (B, S, H)
        if self.positions is not None:
            hidden = hidden + self.positions.weight
        hidden_states, weights = self.encoder(hidden, mask=mask)
        return self.head(hidden_states[-1]), weights
