"""Make it fit: which limits hold, by how much, what else fits, and never a traceback."""

from __future__ import annotations

import html

import ipywidgets
import pytest

from course_utils.classroom import make_it_fit
from course_utils.classroom.make_it_fit import (
    Budget,
    Verdict,
    command,
    compose,
    composed,
    verdict,
)
from course_utils.errors import DataError
from course_utils.lab.operations import parse

MEASURED = {  # MB, ms, accuracy
    "teacher": (90.9, 8.0, 0.75),
    "int8": (23.0, 3.0, 0.755),
    "layers 3, int8": (17.7, 1.6, 0.74),
    "trim 8000, layers 3, int8": (9.1, 1.5, 0.737),
    "layers 3, prune 50, trim, int8": (4.1, 0.9, 0.7),
}
RESULTS = {
    "rows": [
        {"name": name, "size_mb": mb, "latency_ms_p50": ms, "accuracy": accuracy}
        for name, (mb, ms, accuracy) in MEASURED.items()
    ]
}
BUDGET = Budget(mb=20, ms=2, points=2)


def words(line, budget=BUDGET):
    return [limit.words for limit in verdict(line, RESULTS, budget).limits]


# Limits


def test_a_pipeline_that_fits_says_so_and_what_is_smaller_still():
    found = verdict("layers 3, int8", RESULTS, BUDGET)
    assert found.fits
    assert str(found).splitlines() == [
        "layers 3, int8: it fits.",
        "✓ 17.7 MB: fits in 20 MB",
        "✓ 1.6 ms: fits in 2 ms",
        "✓ 1 points lost: 2 may be lost",
        "Smaller, and within all limits:",
        "  trim 8000, layers 3, int8 (9.1 MB)",
    ]


def test_a_limit_that_is_broken_says_by_how_much():
    found = verdict("int8", RESULTS, Budget(mb=20, ms=2.96, points=0))
    assert not found.fits
    assert [limit.holds for limit in found.limits] == [False, False, True]
    assert [limit.words for limit in found.limits] == [
        "23 MB: 3 too many",
        "3 ms: 0.04 too many",
        "0.5 points gained: 0 may be lost",
    ]
    assert str(found).startswith("int8: it does not fit.\n✗ 23 MB")


def test_points_are_lost_gained_or_neither():
    lost = words("layers 3, prune 50, trim, int8")[2]
    assert lost == "5 points lost: 3 too many"
    assert words("teacher", Budget(mb=500, ms=10, points=1)) == [
        "90.9 MB: fits in 500 MB",
        "8 ms: fits in 10 ms",
        "no points lost: 1 may be lost",
    ]


@pytest.mark.parametrize(
    ("budget", "holds"),
    [
        (Budget(mb=17.7, ms=1.6, points=1), [True, True, True]),  # at the limit
        (Budget(mb=17.6, ms=1.6, points=1), [False, True, True]),
        (Budget(mb=17.7, ms=1.5, points=1), [True, False, True]),
        (Budget(mb=17.7, ms=1.6, points=0.9), [True, True, False]),
    ],
)
def test_each_limit_stands_for_itself(budget, holds):
    found = verdict("layers 3, int8", RESULTS, budget)
    assert [limit.holds for limit in found.limits] == holds
    assert found.fits == all(holds)


def test_what_does_not_fit_itself_is_not_offered_as_smaller():
    assert "prune" not in verdict("int8", RESULTS, BUDGET).note
    assert verdict("trim 8000, layers 3, int8", RESULTS, BUDGET).note == ""


def test_a_budget_that_nothing_keeps():
    note = verdict("int8", RESULTS, Budget(mb=1, ms=0.1, points=0)).note
    assert note == "Nothing in this run keeps all three limits."


@pytest.mark.parametrize("line", ["layers 3,int8", "  layers  3 ,  int8 ", "layers 3, int8"])
def test_spaces_do_not_matter(line):
    assert verdict(line, RESULTS, BUDGET).line == "layers 3, int8"


# Lines that were not measured


def test_a_line_that_was_not_measured_says_how_to_measure_it_and_what_is_near():
    found = verdict("layers 3,trim 8000,int8", RESULTS, BUDGET)
    assert not found.fits
    assert str(found).splitlines() == [
        "layers 3, trim 8000, int8",
        "This run has not measured it. To measure it:",
        '  course run --lab --pipeline "layers 3, trim 8000, int8"',
        "Near it, and measured:",
        "  trim 8000, layers 3, int8",  # the same in another order
        "  layers 3, int8",
        "  int8",
    ]


def test_another_amount_is_nearer_than_another_operation():
    near = verdict("layers 2, int8", RESULTS, BUDGET).note.splitlines()[3:]
    assert near == ["  int8", "  layers 3, int8", "  trim 8000, layers 3, int8"]
    near = verdict("prune 25, trim, layers 3", RESULTS, BUDGET)
    assert near.note.startswith("layers comes too late")


@pytest.mark.parametrize(
    "line", ["shrink 3", "", "layers", "int8, trim", "layers 99", "\n", "int8 8"]
)
def test_what_cannot_be_a_pipeline_gets_the_words_of_parse(line):
    found = verdict(line, RESULTS, BUDGET)
    assert not found.fits
    with pytest.raises(DataError) as error:
        parse(line)
    assert found.note == f"{error.value.what} {error.value.do}"


@pytest.mark.parametrize("line", [..., None, 3])
def test_a_cell_that_nobody_filled_is_no_error(line):
    found = verdict(line, RESULTS, BUDGET)
    assert not found.fits
    assert str(found).startswith("No pipeline yet\nWrite one")


@pytest.mark.parametrize(
    "limits", [(0, 1, 1), (-1, 1, 1), (1, 0, 1), (1, 1, -0.1), (float("nan"), 1, 1)]
)
def test_a_budget_that_cannot_be_kept_is_refused(limits):
    with pytest.raises(DataError, match="cannot be kept"):
        Budget(*limits)


def test_a_budget_says_what_it_allows():
    assert str(Budget(mb=5, ms=0.75, points=2.5)) == "at most 5 MB, 0.75 ms, 2.5 points lost"
    assert str(Budget(mb=1234.4, ms=100, points=0)) == "at most 1234 MB, 100 ms, 0 points lost"


# Menus


def test_operations_are_composed_in_the_measured_order_if_there_is_one():
    layers, trim, number = parse("layers 3, trim 8000, int8")
    assert composed([layers, trim, number], RESULTS) == "trim 8000, layers 3, int8"
    assert composed([layers, trim], RESULTS) == "layers 3, trim 8000"
    assert composed([], RESULTS) == "teacher"


@pytest.fixture
def menus(monkeypatch):
    shown = []
    monkeypatch.setattr(make_it_fit, "display", shown.append)
    compose(RESULTS, {"tight": BUDGET, "roomy & free": Budget(mb=100, ms=10, points=50)})
    [box] = shown
    return box, {menu.description: menu for menu in box.children[:-1]}, box.children[-1]


def choose(menu, label):
    menu.value = dict(menu.options)[label]


def test_the_menus_hold_what_was_measured(menus):
    _, by_title, _ = menus
    assert list(by_title) == ["budget", "layers", "prune", "trim", "numbers"]
    assert [label for label, _ in by_title["trim"].options] == ["–", "trim", "trim 8000"]
    assert [label for label, _ in by_title["layers"].options] == ["–", "layers 3"]
    assert by_title["budget"].options == ("tight", "roomy & free")


def test_the_menus_compose_a_line_and_judge_it(menus):
    _, by_title, shown = menus
    assert isinstance(shown, ipywidgets.HTML)
    assert "teacher: it does not fit." in shown.value
    choose(by_title["layers"], "layers 3")
    choose(by_title["numbers"], "int8")
    expected = str(verdict("layers 3, int8", RESULTS, BUDGET))
    assert expected in html.unescape(shown.value)
    by_title["budget"].value = "roomy & free"
    assert "roomy &amp; free: at most 100 MB, 10 ms, 50 points lost" in shown.value
    choose(by_title["prune"], "prune 50")
    assert html.escape(command("layers 3, prune 50, int8")) in shown.value
    choose(by_title["layers"], "–")
    assert html.escape(command("prune 50, int8")) in shown.value


def test_where_no_kernel_runs_the_box_says_what_it_is(menus):
    assert repr(menus[0]) == "(Menus to compose a pipeline. They need a running kernel.)"


def test_an_empty_verdict_fits_nothing():
    assert not Verdict("int8").fits


@pytest.mark.parametrize("mb", ["5", None])
def test_a_limit_that_is_no_number_is_refused_in_words(mb):
    with pytest.raises(DataError, match="cannot be kept"):
        Budget(mb=mb, ms=1, points=1)
