"""Notebook 09, Low rank and small vocabularies: the best of a rank, sizes, inputs, tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from course_utils.classroom.checks import exercise


def _some(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The best matrix of a rank


def _weights() -> Iterator[tuple[Tensor, int]]:
    yield torch.tensor([[3.0, 0.0], [4.0, 5.0]]), 1
    yield _some(5, 3, seed=0), 2
    yield _some(4, 4, seed=1), 2
    yield _some(3, 6, seed=2), 2


def _truncated(
    weight: Tensor,
    rank: int,
    *,
    power: int = 1,
    first: bool = True,
    transposed: bool = True,
) -> Tensor:
    """The truncated decomposition, right by default; each option is a place to go wrong."""
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    kept = slice(None, rank) if first else slice(-rank, None)
    right = vh[kept] if transposed else vh[:, kept].T
    return (u[:, kept] * s[kept] ** power) @ right


@exercise(
    cases=_weights,
    tolerance=1e-5,
    hints=(
        "u, s, vh = torch.linalg.svd(weight, full_matrices=False). The singular values in s are "
        "sorted, the largest first.",
        "Keep the first `rank` of each: columns of u, entries of s, and rows of vh, which is V "
        "transposed already.",
        "u[:, :rank] * s[:rank] multiplies every column with its singular value. What is left is "
        "one matrix product.",
    ),
)
def best_of_rank(weight: Tensor, rank: int) -> Tensor:
    """The matrix (out, in) of this rank with the least sum of squared differences from `weight`."""
    return _truncated(weight, rank)


@best_of_rank.mistake(
    "You keep the *smallest* singular values: that is what the best matrix leaves out. They are "
    "sorted, the largest first."
)
def smallest_kept(weight, rank):
    return _truncated(weight, rank, first=False)


@best_of_rank.mistake(
    "The singular values are missing from your product. u and vh only hold directions, all of "
    "length 1; how much goes along each is what s says."
)
def no_singular_values(weight, rank):
    return _truncated(weight, rank, power=0)


@best_of_rank.mistake(
    "You multiply the singular values into both factors, so that they come out squared. Give them "
    "to one of the two, or the square root of them to each."
)
def singular_values_twice(weight, rank):
    return _truncated(weight, rank, power=2)


@best_of_rank.mistake(
    "torch.linalg.svd returns V transposed: its *rows* are the directions. You take the columns, "
    "as one would of V itself, the old torch.svd's answer."
)
def columns_of_vh(weight, rank):
    return _truncated(weight, rank, transposed=False)


@best_of_rank.mistake(
    "You keep the first rows of the weight and no others. That is pruning: whole outputs go. A low "
    "rank keeps all of them, each made of a few shared directions."
)
def first_rows_kept(weight, rank):
    kept = torch.zeros_like(weight)
    kept[:rank] = weight[:rank]
    return kept


# The rank that pays


def _layers() -> Iterator[tuple[int, int, float]]:
    yield from [(6, 10, 0.9), (384, 384, 1.0), (384, 384, 0.5), (3072, 768, 0.5)]
    yield from [(384, 1536, 0.35), (30522, 384, 0.4)]


@exercise(
    cases=_layers,
    hints=(
        "An (m, n) weight has m · n numbers. How many has a factor (rank, n), and how many the "
        "other, (m, rank)?",
        "Together rank · (m + n). This must be at most share · m · n: solve for the rank.",
        "rank = share · m · n / (m + n), rounded down, since one more would be too many.",
    ),
)
def largest_rank(m: int, n: int, share: float) -> int:
    """The largest rank at which two factors hold at most this share of the m · n numbers."""
    return math.floor(share * m * n / (m + n))


@largest_rank.mistake(
    "You take this share of the full rank. But there are two factors now: at half of its full "
    "rank, a square weight has as many numbers as before, and nothing is saved."
)
def share_of_the_full_rank(m, n, share):
    return math.floor(share * min(m, n))


@largest_rank.mistake(
    "You count one factor, (m, rank), and forget the other one, (rank, n). Both are stored, and "
    "both are multiplied with."
)
def one_factor(m, n, share):
    return math.floor(share * n)


@largest_rank.mistake(
    "You round up. One rank more, and the factors hold more than this share. Round down."
)
def rounded_up(m, n, share):
    return math.ceil(share * m * n / (m + n))


@largest_rank.mistake(
    "You count the singular values as numbers of their own. They are multiplied into one of the "
    "two factors, once and for all: rank · (m + n) numbers, no more."
)
def singular_values_stored(m, n, share):
    return math.floor(share * m * n / (m + n + 1))


@largest_rank.mistake(
    "That is the break-even rank, at which the factors are as large as the weight. Here they are "
    "to have at most `share` of its numbers."
)
def break_even(m, n, share):
    return math.floor(m * n / (m + n))


# Energy


def _values() -> Iterator[tuple[Tensor, float]]:
    yield torch.tensor([8.0, 4.0, 2.0, 1.0]), 0.9
    yield torch.ones(6), 0.5
    yield 0.8 ** torch.arange(12.0), 0.75
    yield torch.tensor([9.0, 8.5, 8.0, 1.0, 0.9, 0.8, 0.7]), 0.95


def _first_with(parts: Tensor, share: float) -> int:
    """How many of the parts, from the first on, hold this share of their sum."""
    held = parts.cumsum(0) / parts.sum()
    return int((held < share - 1e-9).sum()) + 1


@exercise(
    cases=_values,
    hints=(
        "The energy of a singular value is its square. Their sum is the sum of all squared numbers "
        "of the weight.",
        "torch.cumsum adds them up from the first one on. Divided by the last entry, it says which "
        "share each rank holds.",
        "Count the ranks whose share is still too small. One more is enough.",
    ),
)
def rank_for_energy(singular_values: Tensor, share: float) -> int:
    """The smallest rank that holds this share of the sum of the squared singular values (K,)."""
    return _first_with(singular_values.square(), share)


@rank_for_energy.mistake(
    "You add up the singular values as they are. Energy is their squares: what a rank leaves out "
    "of the sum of squares is the squared error of the weight."
)
def not_squared(singular_values, share):
    return _first_with(singular_values, share)


@rank_for_energy.mistake(
    "One rank too few: yours is the last one that does *not* hold the share. The next is asked for."
)
def one_too_few(singular_values, share):
    return _first_with(singular_values.square(), share) - 1


@rank_for_energy.mistake(
    "You begin to add at the smallest value. Ranks are kept from the largest on: that is what "
    "makes few of them hold so much."
)
def from_the_smallest(singular_values, share):
    return _first_with(singular_values.square().flip(0), share)


@rank_for_energy.mistake(
    "You keep this share of the *number* of singular values. The first ones hold more than the "
    "others; how much more is the question."
)
def share_of_the_number(singular_values, share):
    return math.ceil(share * len(singular_values))


@rank_for_energy.mistake(
    "You compare each value with the largest one. A value may be small, and there may be many "
    "like it: together they count. Add them up."
)
def compared_with_the_largest(singular_values, share):
    return int((singular_values >= (1 - share) * singular_values[0]).sum())


# What a layer is given


def _batches() -> Iterator[tuple[Tensor, Tensor]]:
    yield (
        torch.tensor([[[1.0, 2.0], [3.0, -1.0]], [[0.0, 4.0], [7.0, 7.0]]]),
        torch.tensor([[1, 1], [1, 0]]),
    )
    for seed, lengths in ((0, [4, 2, 1]), (1, [3, 5])):
        longest = max(lengths)
        mask = torch.arange(longest) < torch.tensor(lengths)[:, None]  # (B, S)
        yield _some(len(lengths), longest, 3, seed=seed) + 0.5, mask.long()


@exercise(
    cases=_batches,
    tolerance=1e-6,
    hints=(
        "hidden[attention_mask.bool()] are the vectors of the real tokens alone, (N, H).",
        "For one vector x, x xᵀ is torch.outer(x, x). The sum of them over all rows of X is one "
        "matrix product: X.T @ X.",
        "Divide by N, the number of real tokens. Do not take the mean out: a layer is given x, not "
        "x minus its mean.",
    ),
)
def second_moment(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean (H, H) of x xᵀ over the vectors x of all real tokens; hidden is (B, S, H)."""
    x = hidden[attention_mask.bool()]  # (N, H)
    return x.T @ x / len(x)


@second_moment.mistake(
    "Padding counts in your mean. Its vectors are whatever the model makes of [PAD]; no text has "
    "them, and how many there are depends on the batch."
)
def padding_counted(hidden, attention_mask):
    x = hidden.flatten(0, 1)
    return x.T @ x / len(x)


@second_moment.mistake(
    "You leave the padding out of the sum and count it in the number that you divide by. Divide by "
    "attention_mask.sum()."
)
def divided_by_all(hidden, attention_mask):
    x = hidden[attention_mask.bool()]
    return x.T @ x / attention_mask.numel()


@second_moment.mistake(
    "You subtract the mean first: that is the covariance. But the layer multiplies x with its "
    "weight, mean and all, and the mean is often the largest part of it."
)
def covariance(hidden, attention_mask):
    x = hidden[attention_mask.bool()]
    x = x - x.mean(0)
    return x.T @ x / len(x)


@second_moment.mistake(
    "You take the mean within each text, and then the mean of these. A token of a short text then "
    "counts more than one of a long text. All tokens count alike."
)
def mean_of_texts(hidden, attention_mask):
    texts = [x[keep.bool()] for x, keep in zip(hidden, attention_mask, strict=True)]
    return torch.stack([x.T @ x / len(x) for x in texts]).mean(0)


@second_moment.mistake(
    "You return the sum. It grows with the number of texts, and an error measured with it is that "
    "of all tokens together. Divide by their number."
)
def sum_over_tokens(hidden, attention_mask):
    x = hidden[attention_mask.bool()]
    return x.T @ x


@second_moment.mistake(
    "You take the mean vector, and its product with itself. That is a matrix of rank 1: all that "
    "differs from token to token has cancelled out. First x xᵀ, then the mean."
)
def product_of_means(hidden, attention_mask):
    mean = hidden[attention_mask.bool()].mean(0)
    return torch.outer(mean, mean)


# The best matrix of a rank for these inputs


def _given() -> Iterator[tuple[Tensor, Tensor, int]]:
    for seed, (m, n), rank in ((0, (2, 2), 1), (1, (4, 4), 2), (2, (5, 3), 1), (3, (3, 5), 2)):
        scales = torch.linspace(2, 0.3, n, dtype=torch.float64)
        x = (_some(60, n, seed=10 + seed) * scales) @ _some(n, n, seed=20 + seed) + 0.3
        yield _some(m, n, seed=seed), x.T @ x / len(x), rank


def _kept_outputs(weight: Tensor, met: Tensor, rank: int) -> Tensor:
    """The weight, of whose outputs only the directions stay that are the largest in `met`."""
    up = torch.linalg.svd(met, full_matrices=False).U[:, :rank]  # (out, r)
    return up @ (up.T @ weight)


@exercise(
    cases=_given,
    tolerance=1e-5,
    hints=(
        "With moment = L Lᵀ (torch.linalg.cholesky), the mean of |D x|² is the sum of all squared "
        "numbers of D L. So it is weight @ L that wants to be approximated.",
        "The first `rank` columns of u, from the decomposition of weight @ L, are the directions "
        "that carry most of the outputs.",
        "Let only these outputs through: u_r @ (u_r.T @ weight). That undoes L without an inverse.",
    ),
)
def best_for_inputs(weight: Tensor, moment: Tensor, rank: int) -> Tensor:
    """The matrix (out, in) of this rank with the least mean of |(weight - it) x|².

    `moment` (in, in) is the mean of x xᵀ over the inputs.
    """
    return _kept_outputs(weight, weight @ torch.linalg.cholesky(moment), rank)


@best_for_inputs.mistake(
    "You decompose the weight alone; the inputs have no say. That is best for inputs that point "
    "everywhere alike, and these do not."
)
def weight_alone(weight, moment, rank):
    return _kept_outputs(weight, weight, rank)


@best_for_inputs.mistake(
    "You return the approximation of weight @ L. But the layer will be given x: L has to be "
    "undone, by its inverse, or with u_r @ (u_r.T @ weight)."
)
def root_not_undone(weight, moment, rank):
    return _truncated(weight @ torch.linalg.cholesky(moment), rank)


@best_for_inputs.mistake(
    "You multiply with the moment itself. It holds squares: what is wanted is its root L, with "
    "L @ L.T = moment. Large inputs weigh too much in yours."
)
def moment_for_its_root(weight, moment, rank):
    return _kept_outputs(weight, weight @ moment, rank)


@best_for_inputs.mistake(
    "You multiply with the root transposed. D L Lᵀ Dᵀ is the mean of the squared outputs, so it is "
    "weight @ L, with the lower triangle as torch.linalg.cholesky returns it."
)
def root_transposed(weight, moment, rank):
    return _kept_outputs(weight, weight @ torch.linalg.cholesky(moment).T, rank)


@best_for_inputs.mistake(
    "You look at the diagonal of the moment alone: how large each coordinate of the inputs is, and "
    "not which of them rise and fall together."
)
def diagonal_alone(weight, moment, rank):
    return _kept_outputs(weight, weight * moment.diagonal().sqrt(), rank)


@best_for_inputs.mistake(
    "You keep the directions in which the *inputs* are largest. The weight may make next to "
    "nothing of them, and much of a small one. It is the outputs that must stay."
)
def largest_inputs(weight, moment, rank):
    directions = torch.linalg.eigh(moment).eigenvectors[:, -rank:]  # (in, r)
    return weight @ directions @ directions.T


# Tokens to keep


def _vocabularies() -> Iterator[tuple[dict[str, int], list[int], list[list[int]]]]:
    tokens = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "##a", "##b", "ab", "##ab"]
    yield {token: i for i, token in enumerate(tokens)}, [0, 2, 3, 4], [[3, 9, 4], [3, 10, 9, 4]]
    tokens = ["the", "##c", "[UNK]", "c", "cab", "[CLS]", "é", "##ss", "[SEP]", "##é", "[PAD]"]
    tokens += ["##s", "s", "[unused1]", "less"]
    yield {token: i for i, token in enumerate(tokens)}, [2, 5, 8, 10], [[5, 14, 3, 8], [5, 8]]


def _kept_tokens(
    vocabulary: Mapping[str, int],
    special: Sequence[int],
    texts: Sequence[Sequence[int]],
    *,
    seen: bool = True,
    first: bool = True,
    within: bool = True,
    brackets: bool = False,
) -> list[int]:
    """The ids that stay, right by default; each option is a place to go wrong."""
    kept = set(special)
    kept |= {i for ids in texts for i in ids} if seen else set()
    kept |= {i for t, i in vocabulary.items() if first and len(t) == 1}
    kept |= {i for t, i in vocabulary.items() if within and len(t) == 3 and t.startswith("##")}
    kept |= {i for t, i in vocabulary.items() if brackets and t.startswith("[")}
    return sorted(kept)


@exercise(
    cases=_vocabularies,
    hints=(
        "Three kinds stay: the special tokens, what the texts hold, and whatever a word that "
        "nobody has seen yet may be split into.",
        "In the worst case a word is split into its characters: the first stands as it is, the "
        "others with ## in front. Keep both kinds.",
        "Collect ids in a set: special, those of all texts, and those of every token for which "
        'len(token.removeprefix("##")) == 1. Return them sorted, so that the order stays.',
    ),
)
def keep_tokens(
    vocabulary: Mapping[str, int], special: Sequence[int], texts: Sequence[Sequence[int]]
) -> list[int]:
    """The ids, sorted, that stay: special ones, those of the texts, and single characters."""
    return _kept_tokens(vocabulary, special, texts)


@keep_tokens.mistake(
    "Only what the texts hold stays. A new word could then not be split any further: it becomes "
    "[UNK], if that is still there. Keep the special tokens and all single characters, too."
)
def only_what_is_seen(vocabulary, special, texts):
    return sorted({i for ids in texts for i in ids})


@keep_tokens.mistake(
    "No single character is kept for its own sake. A word that is left out could not be split into "
    "what is left, and becomes [UNK]."
)
def no_characters(vocabulary, special, texts):
    return _kept_tokens(vocabulary, special, texts, first=False, within=False)


@keep_tokens.mistake(
    "The characters that *begin* a word are kept; those within one have two hashes in front, and "
    "are missing. A word could be begun and not be ended."
)
def only_first_characters(vocabulary, special, texts):
    return _kept_tokens(vocabulary, special, texts, within=False)


@keep_tokens.mistake(
    "What the texts hold has gone: every word of them would be spelled out, letter by letter, and "
    "the model has never read like that."
)
def only_characters(vocabulary, special, texts):
    return _kept_tokens(vocabulary, special, texts, seen=False)


@keep_tokens.mistake(
    "You keep everything in square brackets. [unused0] and its like are placeholders that no text "
    "holds, almost a thousand rows of BERT's table; special are those in `special`."
)
def placeholders_kept(vocabulary, special, texts):
    return _kept_tokens(vocabulary, special, texts, brackets=True)


@keep_tokens.mistake(
    "The special tokens are kept only where a text holds them. [PAD] and [UNK] may stand in none, "
    "and the first batch of texts of unequal length needs them."
)
def special_if_seen(vocabulary, special, texts):
    return _kept_tokens(vocabulary, [], texts)


@keep_tokens.mistake(
    "The right tokens, in another order. The rows of the table stand in the order of the old ids; "
    "sort them."
)
def not_sorted(vocabulary, special, texts):
    return sorted(_kept_tokens(vocabulary, special, texts), reverse=True)
