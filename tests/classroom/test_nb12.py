"""Exercises of notebook 12: right answers written another way are right, real slips are named."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from course_utils.classroom.checks import exercises
from course_utils.measure.accuracy import over_seeds_and_texts

MINE = {name: exercise for name, exercise in exercises().items() if exercise.notebook == "12"}


# Right answers, written in other ways


def megabytes_matrix_by_matrix(vocabulary, layers, hidden, feed_forward, bytes_each):
    shapes = [(vocabulary, hidden)]
    for _ in range(layers):
        shapes += [(hidden, hidden)] * 4 + [(hidden, feed_forward), (feed_forward, hidden)]
    return sum(rows * columns for rows, columns in shapes) * bytes_each * 1e-6


def front_in_numpy(sizes, accuracies):
    s, a = np.array(sizes), np.array(accuracies)
    as_good = (s[:, None] <= s) & (a[:, None] >= a)
    better = (s[:, None] < s) | (a[:, None] > a)
    return ~(as_good & better).any(0)


def front_from_the_smallest_on(sizes, accuracies):
    """The best accuracy up to a size, and the smallest size of an accuracy."""
    models = list(zip(sizes, accuracies, strict=True))
    best = {size: max(a for s, a in models if s <= size) for size in sizes}
    least = {best: min(s for s, a in models if a >= best) for best in accuracies}
    return [a == best[s] and s == least[a] for s, a in models]


def fits_with_what_is_left(row, teacher, budget):
    at_least = 100 * teacher["accuracy"] - budget["points"]
    return {
        "points": 100 * row["accuracy"] >= at_least,
        "mb": not row["size_mb"] > budget["mb"],
        "ms": budget["ms"] >= row["latency_ms_p50"],
    }


def choose_from_the_sorted(rows, teacher, budget):
    for row in sorted(rows, key=lambda row: row["size_mb"]):
        if all(fits_with_what_is_left(row, teacher, budget).values()):
            return row["name"]
    return None


def choose_in_a_loop(rows, teacher, budget):
    best, least = None, float("inf")
    for row in rows:
        kept = [
            row["size_mb"] <= budget["mb"],
            row["latency_ms_p50"] <= budget["ms"],
            teacher["accuracy"] - row["accuracy"] <= budget["points"] / 100,
        ]
        if False not in kept and row["size_mb"] < least:
            best, least = row["name"], row["size_mb"]
    return best


def interval_from_the_library(right_a, right_b):
    return over_seeds_and_texts(100 * (right_a - right_b))


def interval_from_the_counts(right_a, right_b):
    """As in McNemar's test: from the texts that only one of them has right."""
    n = len(right_a)
    only_a = int(((right_a == 1) & (right_b == 0)).sum())
    only_b = int(((right_a == 0) & (right_b == 1)).sum())
    mean = (only_a - only_b) / n
    return 100 * mean, 196 * ((only_a + only_b) / n - mean**2) ** 0.5 / n**0.5


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("megabytes", megabytes_matrix_by_matrix),
        ("on_the_front", front_in_numpy),
        ("on_the_front", front_from_the_smallest_on),
        ("fits", fits_with_what_is_left),
        ("choose", choose_from_the_sorted),
        ("choose", choose_in_a_loop),
        ("paired_interval", interval_from_the_library),
        ("paired_interval", interval_from_the_counts),
        ("paired_interval", lambda a, b: np.array(interval_from_the_counts(a, b))),
    ],
)
def test_another_way_to_the_right_answer_is_right(name, answer):
    verdict = MINE[name].judge(answer)
    assert verdict.state == "right", verdict.why


# Slips as learners write them


def front_by_a_running_best(sizes, accuracies):
    order = np.lexsort((-np.array(accuracies), sizes))
    found, best = [False] * len(sizes), 0.0
    for k in order:
        if accuracies[k] > best:
            found[k], best = True, accuracies[k]
    return found


def front_with_itself(sizes, accuracies):
    s, a = np.array(sizes), np.array(accuracies)
    return [not ((s <= s[k]) & (a >= a[k])).any() for k in range(len(s))]


def fits_in_shares(row, teacher, budget):
    return {
        "mb": row["size_mb"] <= budget["mb"],
        "ms": row["latency_ms_p50"] <= budget["ms"],
        "points": teacher["accuracy"] - row["accuracy"] <= budget["points"],
    }


def fits_by_retention(row, teacher, budget):
    kept = row["accuracy"] / teacher["accuracy"]
    return fits_in_shares(row, teacher, budget) | {"points": 100 - 100 * kept <= budget["points"]}


def choose_by_the_keys(rows, teacher, budget):
    """`all` of a dict looks at its keys."""
    good = [row for row in rows if all(fits_with_what_is_left(row, teacher, budget))]
    return min(good, key=lambda row: row["size_mb"], default={"name": None})["name"]


def choose_the_first(rows, teacher, budget):
    for row in rows:
        if all(fits_with_what_is_left(row, teacher, budget).values()):
            return row["name"]
    return None


def choose_without_a_none(rows, teacher, budget):
    good = [row for row in rows if all(fits_with_what_is_left(row, teacher, budget).values())]
    return min(good, key=lambda row: row["size_mb"])["name"]


def interval_of_two_samples(right_a, right_b):
    variance = right_a.var(ddof=1) / len(right_a) + right_b.var(ddof=1) / len(right_b)
    return 100 * (right_a.mean() - right_b.mean()), 196 * np.sqrt(variance)


@pytest.mark.parametrize(
    ("name", "answer", "mistake"),
    [
        ("megabytes", lambda v, n, h, f, b: (v * h + n * (3 * h**2 + 2 * h * f)) * b / 10**6,
         "three_for_attention"),
        ("megabytes", lambda v, n, h, f, b: n * (v * h + 4 * h**2 + 2 * h * f) * b / 10**6,
         "a_table_in_each_layer"),
        ("megabytes", lambda v, n, h, f, b: (v * h + n * 6 * h**2) * b / 10**6,
         "square_feed_forward"),
        ("megabytes", lambda v, n, h, f, b: (v * h + n * (4 * h**2 + 2 * h * f)) * b / 1024**2,
         "mebibytes"),
        ("on_the_front", front_by_a_running_best, "one_twin_lost"),
        ("on_the_front", front_with_itself, "beaten_by_itself"),
        ("on_the_front", lambda sizes, accs: [a == max(accs) or s == min(sizes)
                                              for s, a in zip(sizes, accs, strict=True)],
         "the_ends_alone"),
        ("fits", fits_in_shares, "shares_for_points"),
        ("fits", fits_by_retention, "per_cent_of_the_teacher"),
        ("fits", lambda *given: all(fits_with_what_is_left(*given).values()), "one_for_all"),
        ("choose", choose_by_the_keys, "smallest_of_all"),
        ("choose", choose_the_first, "first_that_fits"),
        ("choose", choose_without_a_none, "stops_if_none_fits"),
        ("choose", lambda rows, *limits: choose_from_the_sorted(rows[1:], *limits),
         "without_the_teacher"),
        ("choose", lambda *given: choose_from_the_sorted(*given) or "teacher",
         "teacher_for_none"),
        ("paired_interval", interval_of_two_samples, "as_if_unpaired"),
        ("paired_interval", lambda a, b: (100 * np.mean(a - b), 196 * np.std(a - b)),
         "spread_of_the_texts"),
        ("paired_interval", lambda a, b: over_seeds_and_texts(a - b), "in_shares"),
    ],
)  # fmt: skip
def test_slips_as_learners_write_them_are_named(name, answer, mistake):
    verdict = MINE[name].judge(answer)
    assert (verdict.state, verdict.mistake) == ("wrong", mistake), verdict.why


@pytest.mark.parametrize("exercise", MINE.values(), ids=MINE)
def test_each_has_five_mistakes_and_more(exercise):
    assert len(exercise.mistakes) >= 5


def test_a_slip_nobody_foresaw_shows_a_case():
    verdict = MINE["on_the_front"].judge(lambda sizes, accuracies: [True] * len(sizes))
    assert (verdict.state, verdict.mistake) == ("wrong", None)
    assert "expected [1, 1, 0, 1]" in verdict.why


def test_what_megabytes_leaves_out_is_a_few_per_cent():
    for vocabulary, layers, hidden, feed_forward, bytes_each in MINE["megabytes"].cases():
        config = BertConfig(
            vocab_size=vocabulary,
            num_hidden_layers=layers,
            hidden_size=hidden,
            intermediate_size=feed_forward,
        )
        with torch.device("meta"):  # shapes without numbers
            whole = BertModel(config).num_parameters() * bytes_each / 1e6
        counted = MINE["megabytes"].reference(vocabulary, layers, hidden, feed_forward, bytes_each)
        assert 0.93 * whole < counted < whole


def test_choose_changes_no_rows():
    def by_sorting_in_place(rows, teacher, budget):
        rows.sort(key=lambda row: row["size_mb"])
        return choose_from_the_sorted(rows, teacher, budget)

    verdict = MINE["choose"].judge(by_sorting_in_place)
    assert verdict.state == "wrong"
    assert "changes `rows`" in verdict.why


def test_pairing_pays_in_every_case():
    reference, unpaired = (
        MINE["paired_interval"].reference,
        MINE["paired_interval"].mistakes["as_if_unpaired"].function,
    )
    for case in MINE["paired_interval"].cases():
        assert reference(*case)[1] < 0.6 * unpaired(*case)[1]
