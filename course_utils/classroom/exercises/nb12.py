"""Notebook 12, The compression lab: what a model weighs, which are worth having, what fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from course_utils.classroom.checks import exercise

Row = Mapping[str, Any]

# What a model will weigh


def _shapes() -> Iterator[tuple[int, int, int, int, float]]:
    yield 30522, 6, 384, 1536, 4  # MiniLM with six layers, 32-bit floats
    yield 8000, 3, 384, 768, 1  # three of them, thinner, with fewer words, int8
    yield 30522, 12, 768, 3072, 0.5  # BERT base, int4


def _weigh(table: float, layers: int, layer: float, bytes_each: float) -> float:
    return (table + layers * layer) * bytes_each / 1e6


@exercise(
    cases=_shapes,
    hints=(
        "Count numbers first, bytes later. There are two kinds of numbers: those of the word "
        "table, which stands there once, and those of a layer, which come `layers` times.",
        "The table has a row of H numbers for each of V tokens. A layer has four square matrices "
        "for attention (query, key, value, output) and two between H and F numbers.",
        "numbers = V * H + layers * (4 * H * H + 2 * H * F); the answer is numbers * bytes_each / "
        "1e6, with V = vocabulary, H = hidden and F = feed_forward.",
    ),
)
def megabytes(
    vocabulary: int, layers: int, hidden: int, feed_forward: int, bytes_each: float
) -> float:
    """What the weights of a BERT encoder weigh, in 10^6 bytes: the word table and the layers.

    Biases, norms, positions and the head are left out; they are a few per cent.
    """
    layer = 4 * hidden * hidden + 2 * hidden * feed_forward
    return _weigh(vocabulary * hidden, layers, layer, bytes_each)


@megabytes.mistake(
    "Your attention has three matrices. After query, key and value comes a fourth, the output: it "
    "mixes what the heads have found."
)
def three_for_attention(vocabulary, layers, hidden, feed_forward, bytes_each):
    layer = 3 * hidden * hidden + 2 * hidden * feed_forward
    return _weigh(vocabulary * hidden, layers, layer, bytes_each)


@megabytes.mistake(
    "Your feed-forward part has one matrix. There are two: one goes from H up to F numbers, the "
    "other comes back from F to H."
)
def one_way_up(vocabulary, layers, hidden, feed_forward, bytes_each):
    layer = 4 * hidden * hidden + hidden * feed_forward
    return _weigh(vocabulary * hidden, layers, layer, bytes_each)


@megabytes.mistake(
    "You take the feed-forward matrices as square, H by H. They are H by F, and F is mostly four "
    "times H: they are the larger part of a layer."
)
def square_feed_forward(vocabulary, layers, hidden, feed_forward, bytes_each):
    return megabytes.reference(vocabulary, layers, hidden, hidden, bytes_each)


@megabytes.mistake(
    "You count one layer. What stands in it stands in every layer again, with other numbers: "
    "multiply it by `layers`."
)
def one_layer(vocabulary, layers, hidden, feed_forward, bytes_each):
    return megabytes.reference(vocabulary, 1, hidden, feed_forward, bytes_each)


@megabytes.mistake(
    "You multiply the word table by the layers, too. It stands there once, before the first layer: "
    "only what is in a layer comes `layers` times."
)
def a_table_in_each_layer(vocabulary, layers, hidden, feed_forward, bytes_each):
    return layers * megabytes.reference(vocabulary, 1, hidden, feed_forward, bytes_each)


@megabytes.mistake(
    "The word table is missing: V rows of H numbers. In a small model it is half of everything, "
    "and that is why notebook 09 cuts it."
)
def without_the_table(vocabulary, layers, hidden, feed_forward, bytes_each):
    return megabytes.reference(0, layers, hidden, feed_forward, bytes_each)


@megabytes.mistake(
    "Your answer is how many millions of *numbers* there are. Each takes `bytes_each` bytes: four "
    "as a 32-bit float, one as int8."
)
def millions_of_numbers(vocabulary, layers, hidden, feed_forward, bytes_each):
    return megabytes.reference(vocabulary, layers, hidden, feed_forward, 1)


@megabytes.mistake(
    "You multiply by 8: your answer is in megabits. `bytes_each` is in bytes, and so is the answer."
)
def megabits(vocabulary, layers, hidden, feed_forward, bytes_each):
    return 8 * megabytes.reference(vocabulary, layers, hidden, feed_forward, bytes_each)


@megabytes.mistake(
    "You divide by 8, as if `bytes_each` were bits. It is in bytes already: 4 for a number of 32 "
    "bits."
)
def bytes_taken_for_bits(vocabulary, layers, hidden, feed_forward, bytes_each):
    return megabytes.reference(vocabulary, layers, hidden, feed_forward, bytes_each) / 8


@megabytes.mistake(
    "You divide by 2^20, and get mebibytes (MiB): 5 % less. A megabyte here, as in the table, is "
    "10^6 bytes."
)
def mebibytes(vocabulary, layers, hidden, feed_forward, bytes_each):
    return megabytes.reference(vocabulary, layers, hidden, feed_forward, bytes_each) * 1e6 / 2**20


@megabytes.mistake("Your answer is in bytes. A megabyte is a million of them: divide by 1e6.")
def in_bytes(vocabulary, layers, hidden, feed_forward, bytes_each):
    return megabytes.reference(vocabulary, layers, hidden, feed_forward, bytes_each) * 1e6


# The front


def _models() -> Iterator[tuple[list[float], list[float]]]:
    yield [90.9, 18.0, 23.4, 4.1], [0.75, 0.745, 0.74, 0.6]
    # equal twins, and others that are equal in one of both
    yield [20.0, 20.0, 10.0, 10.0, 30.0, 5.0], [0.8, 0.8, 0.7, 0.6, 0.8, 0.6]
    # the fourth beats the next smaller one, and not the one before
    yield [45.5, 4.0, 10.2, 23.1, 18.0], [0.74, 0.6, 0.74, 0.72, 0.7]


def _front(
    sizes: list[float],
    accuracies: list[float],
    beats: Callable[[float, float, float, float], bool],
) -> list[bool]:
    """True where nothing, itself included, `beats(size, accuracy, its size, its accuracy)`."""
    models = list(zip(sizes, accuracies, strict=True))
    return [not any(beats(*other, *one) for other in models) for one in models]


@exercise(
    cases=_models,
    hints=(
        "Take one model and look for one other that makes it useless. What must hold for this "
        "other model, in size and in accuracy?",
        "It is at least as small, at least as accurate, and better in one of both: without the "
        "last, two equal models, or a model and itself, would throw each other out.",
        "For model i: any(s <= size and a >= accuracy and (s < size or a > accuracy) for s, a in "
        "zip(sizes, accuracies)). It is on the front if that is False.",
    ),
)
def on_the_front(sizes: list[float], accuracies: list[float]) -> list[bool]:
    """For each model, True where no other is at least as good in both and better in one."""
    return _front(
        sizes, accuracies, lambda s, a, size, acc: s <= size and a >= acc and (s, a) != (size, acc)
    )


@on_the_front.mistake(
    "You ask for another model that is better in *both*. One that is as accurate and smaller, or "
    "as small and more accurate, is reason enough not to take this one."
)
def better_in_both(sizes, accuracies):
    return _front(sizes, accuracies, lambda s, a, size, acc: s < size and a > acc)


@on_the_front.mistake(
    "Everything is off the front, for you compare each model with itself: it is as small and as "
    "accurate as it is. Ask that the other one is better in one of both."
)
def beaten_by_itself(sizes, accuracies):
    return _front(sizes, accuracies, lambda s, a, size, acc: s <= size and a >= acc)


@on_the_front.mistake(
    "Two models that are equal in both throw each other out, and neither is left. To beat another "
    "a model has to be better in one of both, not only another model."
)
def twins_beat_each_other(sizes, accuracies):
    models = list(zip(sizes, accuracies, strict=True))
    return [
        not any(s <= size and a >= acc for j, (s, a) in enumerate(models) if j != i)
        for i, (size, acc) in enumerate(models)
    ]


@on_the_front.mistake(
    "You walk from the smallest to the largest and keep what is more accurate than all before. "
    "That is quick, and loses one of two equal models: nothing is better than it."
)
def one_twin_lost(sizes, accuracies):
    best, kept = -1.0, [False] * len(sizes)
    for i in sorted(range(len(sizes)), key=lambda i: (sizes[i], -accuracies[i])):
        kept[i] = accuracies[i] > best
        best = max(best, accuracies[i])
    return kept


@on_the_front.mistake(
    "For you a larger file is the better one. Of accuracy we want more, of size we want less: one "
    "of the two signs is turned."
)
def larger_is_better(sizes, accuracies):
    return on_the_front.reference([-size for size in sizes], accuracies)


@on_the_front.mistake(
    "You compare each model with the next smaller one alone. It may beat this neighbour, and a "
    "model that is smaller still may beat both: look at all of them."
)
def neighbour_only(sizes, accuracies):
    order = sorted(range(len(sizes)), key=lambda i: (sizes[i], -accuracies[i]))
    kept = [True] * len(sizes)
    for before, i in pairwise(order):
        same = (sizes[before], accuracies[before]) == (sizes[i], accuracies[i])
        kept[i] = same or accuracies[i] > accuracies[before]
    return kept


@on_the_front.mistake(
    "You keep the smallest and the most accurate model, the two ends. Between them are those that "
    "trade one for the other, and nothing beats them in both."
)
def the_ends_alone(sizes, accuracies):
    ends = zip(sizes, accuracies, strict=True)
    return [size == min(sizes) or acc == max(accuracies) for size, acc in ends]


@on_the_front.mistake(
    "Your answer is turned round: True where a model *is* beaten. On the front are the others."
)
def the_beaten_ones(sizes, accuracies):
    return [not kept for kept in on_the_front.reference(sizes, accuracies)]


# A budget


def _offers() -> Iterator[tuple[Row, Row, Row]]:
    teacher = {"size_mb": 90.9, "latency_ms_p50": 8.0, "accuracy": 0.875}
    small = {"size_mb": 17.5, "latency_ms_p50": 2.0, "accuracy": 0.75}  # 12.5 points lost
    better = {"size_mb": 23.0, "latency_ms_p50": 9.5, "accuracy": 0.9375}  # 6.25 points gained
    yield small, teacher, {"mb": 20.0, "ms": 2.0, "points": 13.0}
    yield small, teacher, {"mb": 17.5, "ms": 1.5, "points": 12.5}
    yield small, teacher, {"mb": 5.0, "ms": 3.0, "points": 10.0}
    yield better, teacher, {"mb": 25.0, "ms": 9.0, "points": 5.0}


def _lost(row: Row, teacher: Row) -> float:
    return 100 * (teacher["accuracy"] - row["accuracy"])


def _within(row: Row, budget: Row, lost: float) -> dict[str, bool]:
    return {
        "mb": row["size_mb"] <= budget["mb"],
        "ms": row["latency_ms_p50"] <= budget["ms"],
        "points": lost <= budget["points"],
    }


@exercise(
    cases=_offers,
    hints=(
        "Three limits, three answers, in a dict with the budget's own keys: mb, ms and points. "
        "Two of them can be read off the row.",
        "Points are percentage points: from 75 % to 74 % is one point. The table has shares, from "
        "0 to 1. Who is above the teacher has lost nothing.",
        'lost = 100 * (teacher["accuracy"] - row["accuracy"]), and "points" is lost <= '
        'budget["points"]. At the limit is still within it.',
    ),
)
def fits(row: Row, teacher: Row, budget: Row) -> dict[str, bool]:
    """Which of the limits "mb", "ms" and "points" the row keeps; points are lost accuracy."""
    return _within(row, budget, _lost(row, teacher))


@fits.mistake(
    "You count in per cent of the teacher's accuracy. From 80 % to 76 % is four *points*, and five "
    "per cent of what there was. The budget is in points."
)
def per_cent_of_the_teacher(row, teacher, budget):
    return _within(row, budget, 100 * (1 - row["accuracy"] / teacher["accuracy"]))


@fits.mistake(
    "Your loss is a share, and the budget is in points: 0.02 lost are 2 points. As it is, "
    "any loss fits. Multiply by 100."
)
def shares_for_points(row, teacher, budget):
    return _within(row, budget, _lost(row, teacher) / 100)


@fits.mistake(
    "You ask for less than the limit. Who may spend 20 MB may spend all 20: a limit is kept by "
    "what is equal to it, so <= and not <."
)
def less_than_the_limit(row, teacher, budget):
    return {
        "mb": row["size_mb"] < budget["mb"],
        "ms": row["latency_ms_p50"] < budget["ms"],
        "points": _lost(row, teacher) < budget["points"],
    }


@fits.mistake(
    "For you more milliseconds are better. A latency is a time to wait, unlike a throughput: it "
    "has to be at most the limit."
)
def slower_is_better(row, teacher, budget):
    return fits.reference(row, teacher, budget) | {"ms": row["latency_ms_p50"] >= budget["ms"]}


@fits.mistake(
    "A model that is *better* than its teacher counts as one that lost: you take the size of the "
    "difference, abs(). What is gained needs no budget."
)
def gained_is_lost(row, teacher, budget):
    return _within(row, budget, abs(_lost(row, teacher)))


@fits.mistake(
    "Your difference is the wrong way round: row less teacher is what was *gained*. A loss is then "
    "negative and always fits."
)
def wrong_way_round(row, teacher, budget):
    return _within(row, budget, -_lost(row, teacher))


@fits.mistake(
    "You compare the accuracy itself with the points. They are what may be *lost*: the teacher's "
    "accuracy less the row's."
)
def accuracy_for_loss(row, teacher, budget):
    return _within(row, budget, 100 * row["accuracy"])


@fits.mistake(
    "You give one answer for all three limits. Who has to make a model fit wants to know which one "
    "is broken: a dict with an answer for mb, ms and points."
)
def one_for_all(row, teacher, budget):
    return all(fits.reference(row, teacher, budget).values())


@fits.mistake(
    "Your dict has the names of the row's columns. It is to have those of the limits: mb, ms and "
    "points."
)
def names_of_the_row(row, teacher, budget):
    answers = fits.reference(row, teacher, budget).values()
    return dict(zip(("size_mb", "latency_ms_p50", "accuracy"), answers, strict=True))


# The smallest that fits

COLUMNS = ("name", "size_mb", "latency_ms_p50", "accuracy")
TABLE = (
    ("teacher", 90.9, 8.0, 0.875),
    ("int8", 23.0, 3.0, 0.859375),  # 1.5625 points lost
    ("layers 3, int8", 17.5, 2.0, 0.8125),  # 6.25
    ("layers 3, prune 50, int8", 16.0, 1.0, 0.75),  # 12.5
    ("trim 8000, int8", 14.0, 3.25, 0.84375),  # 3.125
    ("trim 8000, layers 3, int8", 9.0, 2.25, 0.796875),  # 7.8125
    ("layers 2, trim 8000, int8", 4.0, 0.5, 0.625),  # 25
)


def _choices() -> Iterator[tuple[list[Row], Row, Row]]:
    budgets = (
        {"mb": 20.0, "ms": 4.0, "points": 13.0},  # four fit
        {"mb": 23.0, "ms": 3.0, "points": 2.0},  # int8, and with nothing to spare
        {"mb": 3.0, "ms": 0.4, "points": 2.0},  # none
        {"mb": 100.0, "ms": 10.0, "points": 1.0},  # the teacher alone
    )
    for budget in budgets:
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in TABLE]
        yield rows, rows[0], budget
    teacher, *rows = (dict(zip(COLUMNS, row, strict=True)) for row in TABLE)
    yield rows[::-1], teacher, {"mb": 20.0, "ms": 2.5, "points": 8.0}


def _fitting(
    rows: Sequence[Row], teacher: Row, budget: Row, kept: Callable[[Iterable[bool]], bool] = all
) -> list[Row]:
    return [row for row in rows if kept(fits.reference(row, teacher, budget).values())]


def _least(rows: Sequence[Row], column: str = "size_mb") -> str | None:
    """The name of the row with the smallest value in `column`, None of no rows."""
    return min(rows, key=lambda row: row[column])["name"] if rows else None


@exercise(
    cases=_choices,
    hints=(
        "Two steps: throw out the rows that break a limit, and take the smallest of those that "
        "are left. What if none is left?",
        "all(fits(row, teacher, budget).values()) says of a row whether it keeps every limit. "
        'min(rows, key=lambda row: row["size_mb"]) is the smallest of a list that is not empty.',
        "good = [row for row in rows if all(fits(row, teacher, budget).values())]; the answer is "
        'min(good, key=lambda row: row["size_mb"])["name"] if good else None.',
    ),
)
def choose(rows: Sequence[Row], teacher: Row, budget: Row) -> str | None:
    """The name of the smallest row that keeps all limits of the budget; None if no row does."""
    return _least(_fitting(rows, teacher, budget))


@choose.mistake(
    "You take the smallest of all rows, whether it fits or not. If you wrote all(fits(…)) or "
    "if fits(…): a dict counts by its keys, and they are always true. Ask its .values()."
)
def smallest_of_all(rows, teacher, budget):
    return _least(rows)


@choose.mistake(
    "One limit that holds is enough for you: any() in place of all(). A model that is small enough "
    "and always wrong does not fit."
)
def any_limit(rows, teacher, budget):
    return _least(_fitting(rows, teacher, budget, any))


@choose.mistake(
    "You take the most accurate of those that fit. All of them are accurate enough, says the "
    "budget; what is asked is the smallest."
)
def most_accurate(rows, teacher, budget):
    fitting = _fitting(rows, teacher, budget)
    return max(fitting, key=lambda row: row["accuracy"])["name"] if fitting else None


@choose.mistake(
    "You take the fastest of those that fit. All of them are fast enough, says the budget; what is "
    "asked is the smallest."
)
def fastest(rows, teacher, budget):
    return _least(_fitting(rows, teacher, budget), "latency_ms_p50")


@choose.mistake(
    "You stop at the first row that fits. The table is not sorted by size: a smaller one may come "
    "later."
)
def first_that_fits(rows, teacher, budget):
    return next((row["name"] for row in _fitting(rows, teacher, budget)), None)


@choose.mistake(
    "You keep the last row that fits: each one takes the place of the one before, also if it is "
    "larger. Compare their size_mb."
)
def last_that_fits(rows, teacher, budget):
    return first_that_fits(rows[::-1], teacher, budget)


@choose.mistake(
    'You give the row itself. What is asked is what it is called, row["name"]: that is the line '
    "that makes this model."
)
def the_whole_row(rows, teacher, budget):
    name = choose.reference(rows, teacher, budget)
    return next((row for row in rows if row["name"] == name), None)


@choose.mistake(
    "You give the names of all rows that fit. What is asked is one of them, the smallest."
)
def all_that_fit(rows, teacher, budget):
    return [row["name"] for row in _fitting(rows, teacher, budget)]


@choose.mistake(
    "If nothing fits, you answer with the teacher. It does not fit either, and is taken for "
    "something that does: the answer is None."
)
def teacher_for_none(rows, teacher, budget):
    return choose.reference(rows, teacher, budget) or teacher["name"]


@choose.mistake(
    "If nothing fits, your function stops with an error: an empty list has no smallest. Such "
    "budgets are common. Ask first whether anything is left, and give None if not."
)
def stops_if_none_fits(rows, teacher, budget):
    return min(_fitting(rows, teacher, budget), key=lambda row: row["size_mb"])["name"]


@choose.mistake(
    "You pass over the teacher. It is a row like the others: with a wide budget for size and a "
    "narrow one for accuracy, it may be the only one that fits."
)
def without_the_teacher(rows, teacher, budget):
    others = [row for row in rows if row["name"] != teacher["name"]]
    return choose.reference(others, teacher, budget)


@choose.mistake(
    "You ask for less than the limits. A limit is kept by what is equal to it: <= and not <, as in "
    "`fits`, which you can call."
)
def less_than_the_limits(rows, teacher, budget):
    kept = [row for row in rows if all(less_than_the_limit(row, teacher, budget).values())]
    return _least(kept)


# Two models on the same texts

Z = 1.96  # of a normal distribution, this many standard deviations around the mean hold 95 %


def _answers() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for seed, (n, accuracy, changed) in enumerate([(1000, 0.7, 0.1), (2000, 0.75, 0.05)]):
        random = np.random.default_rng(seed)
        right = (random.random(n) < accuracy).astype(float)
        others = (random.random(n) < accuracy - 0.2).astype(float)
        yield right, np.where(random.random(n) < changed, others, right)


def _error(values: np.ndarray) -> float:
    """The standard error of the mean."""
    return values.std(ddof=1) / np.sqrt(len(values))


@exercise(
    cases=_answers,
    tolerance=2e-3,  # with so many texts n or n - 1, 1.96 or Student's factor are all the same
    hints=(
        "Both models read the same texts. So there is a difference for each text, of 1, 0 or -1. "
        "What is asked is their mean, and how sure we are of it.",
        "The standard error of a mean is the standard deviation of the values / √n. 1.96 of them "
        "to each side hold 95 %. In points everything is times 100.",
        "d = 100 * (right_a - right_b); the answer is d.mean(), 1.96 * d.std(ddof=1) / "
        "np.sqrt(len(d)).",
    ),
)
def paired_interval(right_a: np.ndarray, right_b: np.ndarray) -> tuple[float, float]:
    """How many points a is better than b, and half of the 95 % interval; 1 for right, 0 for wrong.

    Both arrays are (N,), for the same texts in the same order.
    """
    points = 100 * (right_a - right_b)
    return points.mean(), Z * _error(points)


@paired_interval.mistake(
    "You add the variances of the two models, as if each had read texts of its own. A text that is "
    "hard is hard for both: take the difference text by text, and its deviation."
)
def as_if_unpaired(right_a, right_b):
    mean = paired_interval.reference(right_a, right_b)[0]
    return mean, 100 * Z * np.hypot(_error(right_a), _error(right_b))


@paired_interval.mistake(
    "Your interval is 1.96 standard deviations of the *texts*: where the next text will be. The "
    "mean of n texts is surer by √n: divide by np.sqrt(n)."
)
def spread_of_the_texts(right_a, right_b):
    mean, half = paired_interval.reference(right_a, right_b)
    return mean, half * np.sqrt(len(right_a))


@paired_interval.mistake(
    "You divide the standard deviation by n. The *variance* of a mean is variance / n, so its "
    "standard deviation is divided by √n."
)
def divided_by_n(right_a, right_b):
    mean, half = paired_interval.reference(right_a, right_b)
    return mean, half / np.sqrt(len(right_a))


@paired_interval.mistake(
    "You give one standard error to each side: that holds 68 %, not 95 %. The factor 1.96 is "
    "missing."
)
def one_standard_error(right_a, right_b):
    mean, half = paired_interval.reference(right_a, right_b)
    return mean, half / Z


@paired_interval.mistake(
    "You give the whole width of the interval. What is asked is half of it, to be written behind "
    "a ±."
)
def the_whole_width(right_a, right_b):
    mean, half = paired_interval.reference(right_a, right_b)
    return mean, 2 * half


@paired_interval.mistake(
    "Your answer is in shares; points are a hundred times as much. 0.7 points are easily taken for "
    "0.7 of everything."
)
def in_shares(right_a, right_b):
    mean, half = paired_interval.reference(right_a, right_b)
    return mean / 100, half / 100


@paired_interval.mistake(
    "You take b less a. The question is how many points *a* is better, so a comes first."
)
def b_less_a(right_a, right_b):
    return paired_interval.reference(right_b, right_a)


@paired_interval.mistake(
    "You take the size of each difference, abs(): a text that only a has right and one that only b "
    "has right then add up. That counts how often the two differ, not who is better."
)
def how_often_they_differ(right_a, right_b):
    points = 100 * np.abs(right_a - right_b)
    return points.mean(), Z * _error(points)
