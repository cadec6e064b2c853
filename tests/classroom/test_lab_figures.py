"""The figures of notebook 12 hold what they are given: fronts, orders, two runs of one lab."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.text import Text

from course_utils.classroom.checks import exercises
from course_utils.classroom.lab_figures import beside_figure, front, front_figure, order_figure
from course_utils.classroom.make_it_fit import Budget
from course_utils.classroom.plots import png
from course_utils.errors import DataError

MODELS = [  # MB, accuracy
    ("teacher", 90.9, 0.75),
    ("bf16", 45.5, 0.751),
    ("int8", 23.1, 0.747),
    ("trim, int8", 19.0, 0.747),
    ("layers 3", 69.6, 0.741),
    ("layers 3, int8", 17.7, 0.739),
    ("layers 3, trim, int8", 13.5, 0.739),
    ("layers 3, trim 8000, int8", 8.6, 0.733),
    ("trim 8000, layers 3, int8", 8.62, 0.731),
    ("layers 2, trim 8000, int8", 6.9, 0.72),
    ("layers 3, prune 50, trim 8000, int8", 6.1, 0.715),
    ("layers 2, prune 50, words 64, trim 4000, int8", 4.1, 0.655),
]


def made(models, *, wide=0.02, speed=1.0):
    teacher = models[0]
    return [
        {
            "name": name,
            "size_mb": mb,
            "accuracy": accuracy,
            "accuracy_low": accuracy - wide,
            "accuracy_high": accuracy + wide / 2,
            "size_ratio": teacher[1] / mb,
            "speedup_batch1": speed * (k + 1),
            "speedup_batch32": speed * (k + 1) / 2,
            "retention": accuracy / teacher[2] if teacher[2] else None,
        }
        for k, (name, mb, accuracy) in enumerate(models)
    ]


ROWS = made(MODELS)
FRONT = [
    "layers 2, prune 50, words 64, trim 4000, int8",
    "layers 3, prune 50, trim 8000, int8",
    "layers 2, trim 8000, int8",
    "layers 3, trim 8000, int8",
    "layers 3, trim, int8",
    "trim, int8",
    "bf16",
]


def words(axes):
    return [text.get_text().replace("\n", " ") for text in axes.texts]


def legend(fig):
    [found] = fig.legends
    return [text.get_text() for text in found.get_texts()]


def bars(container):
    """(points, ends of the intervals), both with a row per point."""
    [segments] = [line.get_segments() for line in container[2]]
    return container[0].get_xydata(), np.array(segments)


# The front


def test_the_front_goes_from_the_smallest_to_the_most_accurate():
    assert [row["name"] for row in front(ROWS)] == FRONT


def test_the_front_is_that_of_the_exercise():
    random = np.random.default_rng(0)
    for _ in range(20):
        sizes, accuracies = random.integers(1, 8, 12), random.integers(1, 8, 12) / 10
        rows = made([(str(k), *pair) for k, pair in enumerate(zip(sizes, accuracies, strict=True))])
        expected = exercises()["on_the_front"].reference(list(sizes), list(accuracies))
        names = {row["name"] for row in front(rows)}
        assert [row["name"] in names for row in rows] == expected


def test_those_on_the_front_are_filled_and_named_the_others_hollow():
    [axes] = front_figure(ROWS, title="Which?").axes
    beaten, best = axes.containers
    points, ends = bars(best)
    np.testing.assert_allclose(points, [[r["size_mb"], 100 * r["accuracy"]] for r in front(ROWS)])
    expected = [[100 * r["accuracy_low"], 100 * r["accuracy_high"]] for r in front(ROWS)]
    np.testing.assert_allclose(ends[:, :, 1], expected)
    assert len(bars(beaten)[0]) == len(ROWS) - len(FRONT)
    assert beaten[0].get_markerfacecolor() == "white" != best[0].get_markerfacecolor()
    assert words(axes) == [*FRONT, "teacher"]
    [steps] = axes.lines[-1:]
    assert (steps.get_drawstyle(), axes.get_xscale()) == ("steps-post", "log")
    np.testing.assert_allclose(steps.get_xydata(), points)


def test_a_teacher_on_the_front_is_named_once_and_one_alone_is_drawn():
    fig = front_figure(
        made([("teacher", 90.0, 1.0)], wide=0), title="Which?", budget=Budget(1, 1, 1)
    )
    assert words(fig.axes[0]) == ["teacher"]
    assert png(fig).startswith(b"\x89PNG")


def flat(n):
    """A front on which neighbours differ by next to nothing, with names of one and two lines."""
    names = [
        f"layers {k + 1}, prune 50, words {k + 10}, int8"[: 12 + 6 * (k % 5)] for k in range(n)
    ]
    return made([(name, 4.0 + k, 0.7 + 0.001 * k) for k, name in enumerate(names)])


@pytest.mark.parametrize("rows", [ROWS, flat(9)], ids=["lab", "flat"])
def test_no_name_lies_on_another_nor_beyond_the_axes(rows):
    fig = front_figure(rows, title="Which?")
    fig.draw_without_rendering()
    [axes] = fig.axes
    # of the text: an annotation's own extent has its thread in it
    boxes = [Text.get_window_extent(text) for text in axes.texts if text.get_text() != "teacher"]
    assert len(boxes) >= 7
    for k, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[k + 1 :])
        assert box.x0 > axes.bbox.x0
        assert box.y1 < axes.bbox.y1
    assert all(low.y0 < high.y0 for low, high in pairwise(boxes))


def test_a_budget_is_shaded_and_the_front_of_another_run_dotted():
    others = made([("teacher", 90.0, 0.76), ("int8", 23.0, 0.74), ("worse", 30.0, 0.7)])
    fig = front_figure(ROWS, title="Which?", budget=Budget(10, 2, 4), reference=others)
    [axes] = fig.axes
    [area] = axes.patches
    assert (area.get_x(), area.get_y()) == (axes.get_xlim()[0], pytest.approx(71))
    assert area.get_x() + area.get_width() == pytest.approx(10)
    assert area.get_y() + area.get_height() == pytest.approx(axes.get_ylim()[1])
    [dotted] = [line for line in axes.lines if line.get_linestyle() == ":"]
    np.testing.assert_allclose(dotted.get_xydata(), [[23, 74], [90, 76]])
    assert set(legend(fig)) == {
        "on the front",
        "beaten by one on the front",
        "at most 10 MB and 4 points lost",
        "front of the reference run",
    }


# Orders


def test_each_pair_stands_together_with_its_intervals():
    by_name = {row["name"]: row for row in ROWS}
    pair = by_name["layers 3, trim 8000, int8"], by_name["trim 8000, layers 3, int8"]
    other = by_name["int8"], by_name["trim, int8"]
    [axes] = order_figure([pair, other]).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [row["name"] for row in (*pair, *other)]
    for row, place, container in zip(
        (*pair, *other), axes.get_yticks(), axes.containers, strict=True
    ):
        points, ends = bars(container)
        np.testing.assert_allclose(points, [[100 * row["accuracy"], place]])
        expected = [100 * row["accuracy_low"], 100 * row["accuracy_high"]]
        np.testing.assert_allclose(ends[0, :, 0], expected)
    first, second, third, _ = axes.get_yticks()
    assert third - second > second - first
    bottom, top = axes.get_ylim()
    assert bottom > top  # the first pair is above


# Two runs


def test_the_runs_stand_side_by_side_for_what_both_have():
    reference = made([*MODELS[:4], ("only there", 5.0, 0.6)], speed=3.0)
    own = made([MODELS[0], ("only here", 4.0, 0.5), *MODELS[3:1:-1]])
    fig = beside_figure(reference, own)
    names = [label.get_text() for label in fig.axes[0].get_yticklabels()]
    assert names == ["trim, int8", "int8"]  # the teacher has a ratio of 1 to itself
    keys = ("size_ratio", "speedup_batch1", "speedup_batch32", "retention")
    for axes, key in zip(fig.axes, keys, strict=True):
        factor = 100 if key == "retention" else 1
        theirs, mine, teacher = axes.lines
        for line, rows in ((theirs, reference), (mine, own)):
            by_name = {row["name"]: factor * row[key] for row in rows}
            np.testing.assert_allclose(line.get_xdata(), [by_name[name] for name in names])
        assert teacher.get_xdata() == [factor, factor]
        assert (axes.get_xscale() == "linear") == (key == "retention")
    assert legend(fig) == ["reference run", "your run"]


def test_a_teacher_that_is_never_right_leaves_a_panel_empty():
    rows = made([("teacher", 90.0, 0.0), ("int8", 23.0, 0.0)], wide=0)
    fig = beside_figure(rows, rows)
    assert np.isnan(fig.axes[-1].lines[0].get_xdata()).all()
    assert png(fig).startswith(b"\x89PNG")


def test_runs_without_a_pipeline_in_common_are_refused():
    with pytest.raises(DataError, match="no pipeline in common"):
        beside_figure(ROWS, made([MODELS[0], ("rank 40", 60.0, 0.7)]))
