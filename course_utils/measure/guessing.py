"""How well a masked-language model guesses, how sure we are of it, and how it agrees with another.

A model is asked about the hidden tokens of blocks that it was not trained on, always the same ones.
Tokens of one block depend on each other, so intervals are drawn over blocks, not over tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader

from course_utils.data.masking import MaskedBlocks
from course_utils.errors import DataError
from course_utils.machine import describe
from course_utils.models.mlm import MaskedLM, head_sees_only

RESAMPLES = 2000
ENDS = ("", "_low", "_high")
EPOCH = 0  # the masks of this one, however far a training has come


@dataclass(frozen=True)
class Guesses:
    """What a model made of N hidden tokens; all arrays are (N,), in the order of the blocks."""

    labels: np.ndarray  # the tokens that were hidden
    words: np.ndarray  # the model's likeliest ones
    losses: np.ndarray  # -log of what it gave to the hidden ones, nats
    blocks: np.ndarray  # the number of the block that each stands in


@torch.no_grad()
def guess(model: MaskedLM, blocks: MaskedBlocks, *, batch_size: int = 32) -> Guesses:
    """The guesses of `model`, in eval mode, for every hidden token of `blocks`.

    Matrix products are in the machine's fast data type, the losses in float32. The model is
    afterwards in the mode it was in, and the blocks are in epoch 0. Raises `DataError` for blocks
    longer than its positions, and where no token is hidden.
    """
    blocks.need_room(model.config.max_position_embeddings)
    blocks.set_epoch(EPOCH)
    was_training = model.training
    model.eval()
    dtype = getattr(torch, describe().dtype)
    fast = torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32)
    seen: list[tuple[np.ndarray, ...]] = []
    for number, batch in enumerate(DataLoader(blocks, batch_size)):
        labels = batch["labels"].to(model.device)  # (B, S)
        rows = (labels.flatten() != -100).nonzero()[:, 0]  # (N,)
        with fast, head_sees_only(model, rows):
            logits = model(input_ids=batch["input_ids"].to(model.device)).logits.float()  # (N, V)
        expected = labels.flatten()[rows]  # (N,)
        losses = torch.nn.functional.cross_entropy(logits, expected, reduction="none")
        places = rows // labels.shape[1] + number * batch_size
        found = (expected, logits.argmax(-1), losses, places)
        seen.append(tuple(each.cpu().numpy() for each in found))
    model.train(was_training)
    if not sum(len(expected) for expected, *_ in seen):
        raise DataError("No token is hidden.", do="Take more blocks, or a share above 0.")
    return Guesses(*map(np.concatenate, zip(*seen, strict=True)))


def score_guesses(
    guesses: Guesses, *, teacher: Guesses | None = None, seed: int = 0
) -> dict[str, float]:
    """`perplexity`, `accuracy` and, with a teacher's guesses, `agreement`, with `_low` and `_high`.

    Perplexity is exp(mean loss), accuracy the share of hidden tokens that are guessed, agreement
    the share where the likeliest word is the teacher's. Low and high are the 95 % percentile
    bootstrap (Efron 1979) over 2000 resamples of the blocks; equal seeds resample equal blocks.
    Raises `DataError` when the teacher was asked about other tokens.
    """
    shares = {"accuracy": guesses.words == guesses.labels}
    if teacher is not None:
        _need_same_questions(guesses, teacher)
        shares["agreement"] = guesses.words == teacher.words
    means = {"perplexity": guesses.losses} | shares
    scores = {}
    for name, (mean, low, high) in zip(
        means, _mean_and_interval(np.array([*means.values()]), guesses.blocks, seed), strict=True
    ):
        values = np.array([mean, low, high])
        values = np.exp(values) if name == "perplexity" else values
        scores |= dict(zip((f"{name}{end}" for end in ENDS), values.tolist(), strict=True))
    return scores


def compare_guesses(
    guesses: Guesses, others: Guesses, *, teacher: Guesses, seed: int = 0
) -> dict[str, float]:
    """`perplexity_ratio` and `agreement_gain` over another model, with `_low` and `_high`.

    The ratio is this perplexity by the other's, the gain this agreement with the teacher less the
    other's. Both models were asked the same, so both are compared block by block: how hard a block
    is plays no part in the interval, which is that of `score_guesses`. Raises `DataError` when one
    of the three was asked about other tokens.
    """
    for each in (others, teacher):
        _need_same_questions(guesses, each)
    agrees = [(each.words == teacher.words).astype(float) for each in (guesses, others)]
    pairs = np.array([guesses.losses - others.losses, agrees[0] - agrees[1]])
    ratio, gain = _mean_and_interval(pairs, guesses.blocks, seed)
    names = (f"{name}{end}" for name in ("perplexity_ratio", "agreement_gain") for end in ENDS)
    return dict(zip(names, [*np.exp(ratio).tolist(), *gain.tolist()], strict=True))


def _need_same_questions(guesses: Guesses, others: Guesses) -> None:
    if not np.array_equal(guesses.labels, others.labels):
        raise DataError(
            "The models were asked about other tokens.", do="Let all guess the same blocks."
        )


def _mean_and_interval(values: np.ndarray, blocks: np.ndarray, seed: int) -> np.ndarray:
    """Mean, low and high of each row of (K, N), (K, 3)."""
    numbers, place = np.unique(blocks, return_inverse=True)
    sums = np.array([np.bincount(place, row) for row in values])  # (K, blocks)
    counts = np.bincount(place)
    # How often each block is drawn, when as many are drawn as there are: (resamples, blocks).
    times = np.random.default_rng(seed).multinomial(
        len(numbers), np.full(len(numbers), 1 / len(numbers)), RESAMPLES
    )
    resampled = (sums @ times.T) / (counts @ times.T)  # (K, resamples)
    low, high = np.percentile(resampled, [2.5, 97.5], axis=1)
    return np.stack([values.mean(1), low, high], axis=1)
