"""Masked language modelling as data: some tokens are hidden, and the model is to say which."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from course_utils.data.encoding import PadBatch
from course_utils.errors import DataError, ModelError

SHARE = 0.15


def mask_tokens(
    input_ids: Tensor,
    *,
    special: Collection[int],
    mask_id: int,
    vocab_size: int,
    share: float = SHARE,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """New `input_ids` with tokens hidden, and `labels`: the hidden tokens, -100 elsewhere.

    Both have the shape of `input_ids`, which stays as it is. Each token is chosen by itself with
    probability `share`; of the chosen, 80 % become `mask_id`, 10 % a random token, 10 % stay, and
    all of them have a label. Tokens in `special` (padding is one of them) and `mask_id` are neither
    chosen nor drawn; all others are drawn equally often, so that at times the token that was there
    comes back. Devlin et al. 2019, section 3.1, who chose an exact share of every text instead.
    Raises `DataError` for a share outside 0 to 1, for ids that are not in the vocabulary, and where
    every token is special.
    """
    _check(input_ids, {mask_id, *special}, vocab_size, share)
    is_ordinary = torch.ones(vocab_size, dtype=torch.bool)
    is_ordinary[[mask_id, *special]] = False
    ordinary = is_ordinary.nonzero()[:, 0]  # (V',)
    if not len(ordinary):
        raise DataError("Every token of the vocabulary is special: there is none to draw.")
    shape = input_ids.shape
    chosen = (torch.rand(shape, generator=generator) < share) & is_ordinary[input_ids]
    fate = torch.rand(shape, generator=generator)  # below 0.8 [MASK], below 0.9 random
    drawn = ordinary[torch.randint(len(ordinary), shape, generator=generator)]
    labels = torch.where(chosen, input_ids, -100)
    masked = torch.where(chosen & (fate < 0.9), drawn, input_ids)
    return torch.where(chosen & (fate < 0.8), mask_id, masked), labels


class MaskBatch:
    """A collator: texts are padded as by `PadBatch` and masked anew each time they are read.

    Special are all of the tokenizer's special tokens. Equal seeds give equal masks for equal
    batches in an equal order.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, share: float = SHARE, seed: int = 0):
        if tokenizer.mask_token_id is None or tokenizer.pad_token_id is None:
            raise ModelError(
                "This tokenizer has no [MASK] or no [PAD].", do="Take the tokenizer of a BERT."
            )
        self.pad = PadBatch(tokenizer.pad_token_id)
        self.generator = torch.Generator().manual_seed(seed)
        self.settings = {
            "special": tokenizer.all_special_ids,
            "mask_id": tokenizer.mask_token_id,
            "vocab_size": len(tokenizer),
            "share": share,
        }

    def __call__(self, items: list[dict]) -> dict[str, Tensor]:
        batch = self.pad(items)
        batch["input_ids"], batch["labels"] = mask_tokens(
            batch["input_ids"], **self.settings, generator=self.generator
        )
        return batch


def _check(input_ids: Tensor, special: set[int], vocab_size: int, share: float) -> None:
    if not 0 <= share <= 1:
        raise DataError(
            f"A share of {share:g} of the tokens cannot be masked.",
            do="Take 0 to 1, usually 0.15.",
        )
    if not isinstance(input_ids, Tensor) or input_ids.dtype not in (torch.int64, torch.int32):
        kind = getattr(input_ids, "dtype", type(input_ids).__name__)
        raise DataError(f"Token ids are a tensor of whole numbers, these are {kind}.")
    for ids, what in ((torch.tensor(sorted(special)), "special id"), (input_ids, "id")):
        if len(wrong := ids[(ids < 0) | (ids >= vocab_size)]):
            raise DataError(
                f"The {what} {int(wrong[0])} is not in a vocabulary of {vocab_size}.",
                do="Take ids, special ids and vocab_size, len(tokenizer), from one tokenizer.",
            )
