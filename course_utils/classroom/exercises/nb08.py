"""Notebook 08, Pruning: zeros, rows of heads, rewiring, two importances, a schedule."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from course_utils.classroom.checks import exercise


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Zeros


def _matrices() -> Iterator[tuple[Tensor, float]]:
    for seed, (rows, columns), share in ((0, (2, 4), 0.5), (1, (3, 6), 1 / 3), (2, (5, 8), 0.75)):
        sizes = torch.arange(1, rows + 1)[:, None]  # some rows are larger than others
        yield _normal(rows, columns, seed=seed) * sizes, share


def _zeroed(weight: Tensor, share: float, key: Tensor) -> Tensor:
    """The matrix with zeros where `key` is smallest: this share of its elements."""
    n = round(share * weight.numel())
    pruned = weight.flatten().clone()
    pruned[key.flatten().argsort()[:n]] = 0
    return pruned.view_as(weight)


@exercise(
    cases=_matrices,
    hints=(
        "Which weights matter least? Those closest to zero, from either side. Sort the whole "
        "matrix by size, not row by row.",
        "n = round(share * weight.numel()). weight.abs().flatten().argsort()[:n] are the places of "
        "the n smallest.",
        "Take a copy first: pruned = weight.clone().flatten(); set its n places to 0; return it in "
        "the old shape, .view_as(weight).",
    ),
)
def prune_weights(weight: Tensor, share: float) -> Tensor:
    """A copy of the matrix in which this share of the weights is 0: those closest to zero."""
    return _zeroed(weight, share, weight.abs())


@prune_weights.mistake(
    "You sort by value, and a weight of -3 comes before one of 0.1. A large negative weight "
    "matters as much as a large positive one: sort by weight.abs()."
)
def sign_counts(weight, share):
    return _zeroed(weight, share, weight)


@prune_weights.mistake(
    "You set the *largest* weights to zero. What is left is the noise: sort the other way."
)
def the_largest_go(weight, share):
    return _zeroed(weight, share, -weight.abs())


@prune_weights.mistake(
    "In your result this share of the weights *stays*. In this course a share says what goes, "
    "where we prune single weights."
)
def share_stays(weight, share):
    return _zeroed(weight, 1 - share, weight.abs())


@prune_weights.mistake(
    "You prune the same share of every row. That can be wanted, but here the matrix is asked as a "
    "whole: a row of small weights may lose more than one of large ones."
)
def each_row_its_share(weight, share):
    return torch.stack([_zeroed(row, share, row.abs()) for row in weight])


@prune_weights.mistake(
    "You take `share` as a part of the largest weight. How many weights lie below that depends on "
    "the matrix; what is asked is a share of their *number*."
)
def share_of_the_largest(weight, share):
    return weight * (weight.abs() >= share * weight.abs().max())


@prune_weights.mistake(
    "You return the mask, ones and zeros. The weights that stay keep their values: weight * mask."
)
def the_mask_alone(weight, share):
    return (_zeroed(weight, share, weight.abs()) != 0).to(weight)


# Rows of heads


def _heads() -> Iterator[tuple[list[int], int]]:
    yield from [([1], 2), ([0, 2], 3), ([1, 3, 4], 4), ([2, 5], 2)]


@exercise(
    cases=_heads,
    hints=(
        "Heads are counted from 0 and lie one below another in the matrix of the queries. With a "
        "head size of 3, head 0 has rows 0, 1, 2. Which has head 1?",
        "Head h begins in row h · head_size and has head_size rows.",
        "Two loops in one list: [… for h in heads for k in range(head_size)].",
    ),
)
def rows_of_heads(heads: list[int], head_size: int) -> list[int]:
    """The rows of query, key and value that belong to these heads, head by head."""
    return [h * head_size + k for h in heads for k in range(head_size)]


@rows_of_heads.mistake(
    "A head is not one row: it has head_size rows, for it makes head_size coordinates of each "
    "token. You kept a single one for each."
)
def one_row_each(heads, head_size):
    return [h * head_size for h in heads]


@rows_of_heads.mistake(
    "You return the numbers of the heads. As rows, these are all in head 0 or 1: head h begins in "
    "row h · head_size."
)
def heads_as_rows(heads, head_size):
    return list(heads)


@rows_of_heads.mistake(
    "You count the heads from 1. Head 0 is the first and has the rows 0 to head_size - 1."
)
def heads_from_one(heads, head_size):
    return [(h - 1) * head_size + k for h in heads for k in range(head_size)]


@rows_of_heads.mistake(
    "You keep as many rows as these heads have, but the first ones, whichever heads you are asked "
    "for. Then you rank heads, and always keep head 0."
)
def the_first_rows(heads, head_size):
    return list(range(len(heads) * head_size))


@rows_of_heads.mistake(
    "The right rows, in another order: first the first row of each head, then the second. Query "
    "and key would still meet, but the model cuts the result into heads of neighbouring rows."
)
def heads_mixed(heads, head_size):
    return [h * head_size + k for k in range(head_size) for h in heads]


@rows_of_heads.mistake(
    "The last row of each head is missing. range(a, b) ends before b: its end is (h + 1) · "
    "head_size."
)
def last_row_missing(heads, head_size):
    return [h * head_size + k for h in heads for k in range(head_size - 1)]


# Rewiring

Four = tuple[Tensor, Tensor, Tensor, Tensor]


def _feed_forwards() -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, list[int]]]:
    for seed, n_neurons, hidden, kept in ((0, 3, 4, [0, 2]), (1, 5, 5, [1, 3, 4]), (2, 4, 6, [3])):
        yield (
            _normal(n_neurons, hidden, seed=seed),
            _normal(n_neurons, seed=seed + 10),
            _normal(hidden, n_neurons, seed=seed + 20),
            _normal(hidden, seed=seed + 30),
            kept,
        )


@exercise(
    cases=_feed_forwards,
    hints=(
        "A neuron is written by one row of w_in and one number of b_in, and read through one "
        "column of w_out. All three go, and nothing else.",
        "w_in[kept] are rows, w_out[:, kept] are columns. b_out belongs to the hidden coordinates.",
        "Return (w_in[kept], b_in[kept], w_out[:, kept], b_out): smaller matrices, no zeros.",
    ),
)
def cut_neurons(w_in: Tensor, b_in: Tensor, w_out: Tensor, b_out: Tensor, kept: list[int]) -> Four:
    """The four with the neurons `kept` only: w_in (F, H), b_in (F,), w_out (H, F), b_out (H,)."""
    return w_in[kept], b_in[kept], w_out[:, kept], b_out


@cut_neurons.mistake(
    "You set the others to zero and keep their places. The answer is right, the matrices as large "
    "and as slow as before. Take the rows and columns out: w_in[kept]."
)
def zeros_in_their_place(w_in, b_in, w_out, b_out, kept):
    mask = torch.zeros(len(b_in))
    mask[kept] = 1
    return w_in * mask[:, None], b_in * mask, w_out * mask, b_out


@cut_neurons.mistake(
    "You took rows of w_out. Its rows are hidden coordinates, its *columns* read the neurons: "
    "w_out[:, kept]."
)
def rows_of_both(w_in, b_in, w_out, b_out, kept):
    return w_in[kept], b_in[kept], w_out[kept], b_out


@cut_neurons.mistake(
    "Rows and columns are swapped: torch's nn.Linear keeps its weight as (out, in), so a neuron "
    "is a row of w_in and a column of w_out."
)
def rows_and_columns_swapped(w_in, b_in, w_out, b_out, kept):
    return w_in[:, kept], b_in[kept], w_out[kept], b_out


@cut_neurons.mistake(
    "b_in still has a number for every neuron, also for those that are gone. The shapes do not fit "
    "any more: b_in[kept]."
)
def old_bias(w_in, b_in, w_out, b_out, kept):
    return w_in[kept], b_in, w_out[:, kept], b_out


@cut_neurons.mistake(
    "You cut b_out as well. It has one number for each hidden coordinate, and no hidden coordinate "
    "has gone."
)
def both_biases_cut(w_in, b_in, w_out, b_out, kept):
    return w_in[kept], b_in[kept], w_out[:, kept], b_out[kept]


@cut_neurons.mistake("You keep the neurons that should go. `kept` names those that stay.")
def the_others_stay(w_in, b_in, w_out, b_out, kept):
    rest = [k for k in range(len(b_in)) if k not in kept]
    return w_in[rest], b_in[rest], w_out[:, rest], b_out


@cut_neurons.mistake(
    "You make up for the missing neurons by a factor, as dropout does. Dropout strikes out at "
    "random; here the least important ones go, and shrunk would no longer equal masked."
)
def scaled_up(w_in, b_in, w_out, b_out, kept):
    return w_in[kept], b_in[kept], w_out[:, kept] * len(b_in) / len(kept), b_out


# Importance by Taylor


def _activations() -> Iterator[tuple[Tensor, Tensor]]:
    for seed, shape in ((0, (2, 2, 3)), (1, (4, 5, 6)), (2, (7, 3, 2))):
        yield _normal(*shape, seed=seed), _normal(*shape, seed=seed + 10)


def _change(activations: Tensor, gradients: Tensor) -> Tensor:
    """By how much the loss would change, to first order and with its sign, (N, S, F)."""
    return activations * gradients


@exercise(
    cases=_activations,
    tolerance=1e-5,
    hints=(
        "Without neuron f, its activation is 0 in all tokens. To first order the loss of a text "
        "changes by minus the sum over tokens of activation · gradient.",
        "Up or down, a change is a change: take the absolute value, once for each text. So: "
        "product, sum over tokens, absolute value, mean over texts.",
        "(activations * gradients).sum(1) is (N, F): one signed change for each text and neuron.",
    ),
)
def taylor_scores(activations: Tensor, gradients: Tensor) -> Tensor:
    """The score of each neuron, (F,), from activations and gradients of the loss, (N, S, F)."""
    return _change(activations, gradients).sum(1).abs().mean(0)


@taylor_scores.mistake(
    "You take the absolute value of each token before you add them up. Within a text, one loss "
    "changes: a token that raises it and one that lowers it cancel. Sum over tokens first."
)
def absolute_too_early(activations, gradients):
    return _change(activations, gradients).abs().sum(1).mean(0)


@taylor_scores.mistake(
    "You average over the texts first, then take the absolute value. A neuron that helps one half "
    "of the texts and harms the other would score 0, and it is busy in all of them."
)
def absolute_too_late(activations, gradients):
    return _change(activations, gradients).sum(1).mean(0).abs()


@taylor_scores.mistake(
    "There is no absolute value. A neuron whose removal would *raise* the loss a lot then ranks "
    "last or first by its sign alone."
)
def keeps_the_sign(activations, gradients):
    return _change(activations, gradients).sum(1).mean(0)


@taylor_scores.mistake(
    "Your score has the gradient alone. It says how much the loss would change for a step of 1; "
    "but the neuron goes from its activation to 0: multiply by the activation."
)
def gradient_alone(activations, gradients):
    return gradients.sum(1).abs().mean(0)


@taylor_scores.mistake(
    "Your score has the activation alone. A neuron may be loud and matter to nobody after it: "
    "multiply by the gradient."
)
def activation_alone(activations, gradients):
    return activations.sum(1).abs().mean(0)


@taylor_scores.mistake(
    "The ranking is right, the score is a sum over texts: it grows with every text you read. Take "
    "the mean, so that scores from 100 and from 1 000 texts compare."
)
def sum_over_texts(activations, gradients):
    return _change(activations, gradients).sum(1).abs().sum(0)


@taylor_scores.mistake(
    "You take the mean over tokens. A neuron is removed in *all* tokens of a text at once: the "
    "changes add up."
)
def mean_over_tokens(activations, gradients):
    return _change(activations, gradients).mean(1).abs().mean(0)


# Importance by movement


def _steps() -> Iterator[tuple[Tensor, Tensor]]:
    for seed, shape in ((0, (2, 2, 3)), (1, (3, 4, 5)), (2, (6, 5, 2))):
        yield _normal(*shape, seed=seed), _normal(*shape, seed=seed + 10)


@exercise(
    cases=_steps,
    tolerance=1e-5,
    hints=(
        "A step of the optimizer changes w by about -rate · gradient. When does that drive w away "
        "from zero? When w and the gradient have opposite signs.",
        "So -w · gradient is positive where the weight grows in size. Add it up over all steps, "
        "and over all weights of a row: a row is one neuron.",
        "Two axes are summed away, steps (0) and columns (2), and a minus stands before it all.",
    ),
)
def movement_scores(weights: Tensor, gradients: Tensor) -> Tensor:
    """The score of each neuron, (F,), from its weights and gradients at T steps, (T, F, H)."""
    return -(weights * gradients).sum((0, 2))


@movement_scores.mistake(
    "The minus is missing. The optimizer goes *against* the gradient: a positive weight with a "
    "positive gradient shrinks. Your best neurons are those that training wants to lose."
)
def no_minus(weights, gradients):
    return (weights * gradients).sum((0, 2))


@movement_scores.mistake(
    "You take absolute values. Then a weight that moves towards zero scores as high as one that "
    "moves away from it, and the direction is what this score is about."
)
def without_direction(weights, gradients):
    return (weights * gradients).abs().sum((0, 2))


@movement_scores.mistake(
    "You look at the last step alone. One batch is mostly noise: the score is the sum over all "
    "steps."
)
def last_step_alone(weights, gradients):
    return -(weights[-1] * gradients[-1]).sum(1)


@movement_scores.mistake(
    "You use the gradients alone. That says where the weights go, not whether it is away from "
    "zero: multiply each by its weight."
)
def gradients_alone(weights, gradients):
    return -gradients.sum((0, 2))


@movement_scores.mistake(
    "That is magnitude: the size of the weights at the end. Movement asks how it *changed* while "
    "the model was fine-tuned."
)
def size_at_the_end(weights, gradients):
    return weights[-1].square().sum(1).sqrt()


@movement_scores.mistake(
    "You add up the columns of each neuron's inputs, (H,): a score for each coordinate. A neuron "
    "is a row."
)
def a_score_per_column(weights, gradients):
    return -(weights * gradients).sum((0, 1))


# A schedule


def _schedules() -> Iterator[tuple[float, int]]:
    yield from [(0.5, 2), (0.75, 3), (0.9, 5), (0.4, 4)]


@exercise(
    cases=_schedules,
    hints=(
        "After round t of n, what is left to do is (1 - t / n)³ of the way. How much of it is "
        "done?",
        "s(t) = end · (1 - (1 - t / n)³), for t = 1, 2, … n. The last one is `end`.",
        "[end * (1 - (1 - t / rounds) ** 3) for t in …]: where does the range begin, where does "
        "it end?",
    ),
)
def gone_after(end: float, rounds: int) -> list[float]:
    """The share of the parts that is gone after each round: fast at first, then ever slower."""
    return [end * (1 - (1 - t / rounds) ** 3) for t in range(1, rounds + 1)]


@gone_after.mistake(
    "A straight line: the same share in every round. It can be done, but the last cuts are the "
    "ones that hurt. The cubic schedule takes most where most is superfluous, at the start."
)
def straight_line(end, rounds):
    return [end * t / rounds for t in range(1, rounds + 1)]


@gone_after.mistake(
    "Your schedule is slow at first and ends with the largest cut: end · (t / n)³. Turn it round: "
    "what is *left to do* shrinks with the third power."
)
def slow_at_first(end, rounds):
    return [end * (t / rounds) ** 3 for t in range(1, rounds + 1)]


@gone_after.mistake(
    "Your rounds are counted from 0: nothing goes in the first one, and the last never reaches "
    "`end`. t runs from 1 to n."
)
def rounds_from_zero(end, rounds):
    return [end * (1 - (1 - t / rounds) ** 3) for t in range(rounds)]


@gone_after.mistake(
    "You return what goes *in* each round. Asked is what is gone *after* it, all rounds so far "
    "together; the last is `end`."
)
def each_round_alone(end, rounds):
    gone = [end * (1 - (1 - t / rounds) ** 3) for t in range(rounds + 1)]
    return [now - before for before, now in pairwise(gone)]


@gone_after.mistake(
    "You return the share that stays. Asked is the share that is gone: from small to large."
)
def what_stays(end, rounds):
    return [1 - end * (1 - (1 - t / rounds) ** 3) for t in range(1, rounds + 1)]


@gone_after.mistake(
    "You take the same share of what is *left* in every round: 1 - (1 - end)^(t / n). It is fast "
    "at first, too, but it is not this schedule, which almost stops before the end."
)
def a_share_of_the_rest(end, rounds):
    return [1 - (1 - end) ** (t / rounds) for t in range(1, rounds + 1)]
