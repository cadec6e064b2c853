"""More text for a student to hear its teacher on, where a task brings none of its own."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from course_utils.data.encoding import pad
from course_utils.errors import DataError, ModelError

HIDDEN_SHARE = 0.1
JOINED_SHARE = 0.5
CANDIDATES = 15


def varied(
    input_ids: Sequence[list[int]], n: int, *, mask_id: int, max_length: int, seed: int = 0
) -> list[list[int]]:
    """`n` new texts as token ids: a given one, half of the time another behind it, tokens hidden.

    A given text begins and ends with a special token ([CLS], [SEP]); a new one has the first
    text's. Each token between them gives way to `mask_id` with a probability of 0.1, and of what
    is longer than `max_length` tokens the end is cut. Nobody knows the new texts' labels, but the
    teacher has an opinion of each, and a student that hears it learns how its teacher goes on
    beyond the texts of the task. The same seed gives the same texts.
    After Tang et al. 2019 (Distilling Task-Specific Knowledge from BERT), section 3.3, who mask
    words, too, but sample n-grams where this joins texts.
    """
    dice = random.Random(seed)
    made = []
    for _ in range(n):
        first, *tokens, last = dice.choice(input_ids)
        if dice.random() < JOINED_SHARE:
            tokens += dice.choice(input_ids)[1:-1]
        tokens = [mask_id if dice.random() < HIDDEN_SHARE else t for t in tokens]
        made.append([first, *tokens[: max_length - 2], last])
    return made


def word_dropout(
    input_ids: Sequence[list[int]], share: float, *, mask_id: int, seed: int = 0
) -> list[list[int]]:
    """The texts, in their order, with tokens hidden: their labels are those they had.

    Each token gives way to `mask_id` with a probability of `share`, but not the first and the last
    of a text, which are special ([CLS], [SEP]). The same seed hides the same tokens. After Iyyer et
    al. 2015 (Deep Averaging Networks), section 3.2, who leave the words out. Raises `DataError` for
    a share outside 0 to 1.
    """
    _check_share(share)
    dice = random.Random(seed)
    return [
        [first, *(mask_id if dice.random() < share else t for t in tokens), last]
        for first, *tokens, last in input_ids
    ]


def mask_and_fill(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    input_ids: Sequence[list[int]],
    *,
    share: float = 0.15,
    n: int = 1,
    seed: int = 0,
    batch_size: int = 32,
) -> list[list[int]]:
    """`n` new texts for each text, as long as it: some tokens are those that a model guessed.

    The texts come in their order, then once more in their order, and so on: labels repeat `n`
    times. Each token that is not special is hidden with a probability of `share`, and at least one
    of every text; for each the masked-language `model` gives its 15 likeliest guesses, none of them
    special, and one is drawn by its probability. It may be the token that was there. Nobody knows
    whether the label is still right ("not good" may become "so good"): ask a teacher. The same seed
    gives the same texts. The model computes in eval mode and is afterwards in the mode it was in.

    After Wu et al. 2019, "Conditional BERT contextual augmentation", without the condition on the
    label; the number of guesses is that of Jiao et al. 2020 (TinyBERT), algorithm 1. Raises
    `DataError` for a share outside 0 to 1 and for texts that the model cannot read, `ModelError`
    for a tokenizer that is not the model's.
    """
    _check_share(share)
    _check_fits(model, tokenizer, input_ids)
    dice = torch.Generator().manual_seed(seed)
    made = [list(text) for _ in range(n) for text in input_ids]
    order = sorted(range(len(made)), key=lambda i: len(made[i]))  # so that there is little padding
    training = model.training
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            new = _filled(model, tokenizer, [made[i] for i in batch], share, dice)
            for i, ids in zip(batch, new.tolist(), strict=True):
                made[i] = ids[: len(made[i])]
    finally:
        model.train(training)
    return made


@torch.no_grad()
def _filled(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[list[int]],
    share: float,
    dice: torch.Generator,
) -> Tensor:
    """The texts (B, S), padded, with drawn guesses in the place of hidden tokens."""
    special = torch.tensor(tokenizer.all_special_ids)
    batch = pad(texts, tokenizer.pad_token_id, multiple_of=8)
    ids = batch["input_ids"]  # (B, S)
    chance = torch.rand(ids.shape, generator=dice).masked_fill(torch.isin(ids, special), 2)
    hidden = chance < share
    if share:  # the likeliest token of every text, too, if it has one that is not special
        hidden |= (chance == chance.amin(1, keepdim=True)) & (chance < 2)
    if not hidden.any():
        return ids
    batch["input_ids"] = ids.masked_fill(hidden, tokenizer.mask_token_id)
    with _head_sees_only(model, hidden):
        logits = model(**{name: t.to(model.device) for name, t in batch.items()}).logits  # (N, V)
    logits = logits.float().cpu()[:, : len(tokenizer)]
    logits[:, special] = -torch.inf
    best = logits.topk(min(CANDIDATES, len(tokenizer) - len(special)))  # (N, 15)
    drawn = best.values.softmax(-1).multinomial(1, generator=dice)  # (N, 1)
    return ids.masked_scatter(hidden, best.indices.gather(1, drawn))


@contextmanager
def _head_sees_only(model: PreTrainedModel, hidden: Tensor) -> Iterator[None]:
    """Inside the block the model's logits are (N, V), of the N places where `hidden` is true.

    The product with all word embeddings is as much work as the rest of a small model.
    """
    rows = hidden.to(model.device)
    decoder = model.get_output_embeddings()
    hook = decoder.register_forward_pre_hook(lambda _, inputs: (inputs[0][rows],))  # (N, H)
    try:
        yield
    finally:
        hook.remove()


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise DataError(f"A share of {share} of the tokens cannot be hidden.", do="Take 0 to 1.")


def _check_fits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, input_ids: Sequence[list[int]]
) -> None:
    rows, positions = model.config.vocab_size, model.config.max_position_embeddings
    if tokenizer.mask_token_id is None or len(tokenizer) > rows:
        raise ModelError(
            f"This tokenizer has {len(tokenizer)} tokens with mask token {tokenizer.mask_token}; "
            f"the model knows {rows}.",
            do="Take the tokenizer from the folder of the model.",
        )
    if model.get_output_embeddings() is None:
        raise ModelError(
            f"A {type(model).__name__} does not guess words.", do="Take a masked-language model."
        )
    largest = max((max(text, default=0) for text in input_ids), default=0)
    longest = max(map(len, input_ids), default=0)
    if largest >= len(tokenizer) or longest > positions:
        raise DataError(
            f"Texts of up to {longest} tokens with ids up to {largest}: the model reads "
            f"{positions} tokens with ids below {len(tokenizer)}.",
            do="Give texts that this tokenizer made ids of, and cut them.",
        )
