"""The figures of notebook 04 hold what they are given, in its place and under its name."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from course_utils.classroom.plots import COLOURS
from course_utils.classroom.student_figures import (
    choices_figure,
    likeness_figure,
    maps_figure,
    over_seeds,
    repair_figure,
    savings_figure,
    side_by_side,
    widths_figure,
)


def filled(axes, row):
    """The colours of the boxes in a row, white ones as None, from left to right."""
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    here = [box for box in boxes if round(box.get_y() + box.get_height() / 2) == row]
    colours = [to_hex(box.get_facecolor()).upper() for box in sorted(here, key=Rectangle.get_x)]
    return [None if colour == "#FFFFFF" else colour for colour in colours]


def test_a_map_fills_the_layers_that_are_kept_and_numbers_them_anew():
    [axes] = maps_figure(4, {"ends": (0, 3), "turned": (2, 1)}).axes
    blue = COLOURS["blue"]
    assert filled(axes, 0) == [blue, None, None, blue]
    assert filled(axes, 1) == [None, blue, blue, None]
    numbers = {(round(t.get_position()[0]), t.get_position()[1]): t.get_text() for t in axes.texts}
    assert numbers == {(0, 0): "0", (3, 0): "1", (2, 1): "0", (1, 1): "1"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ends", "turned"]


def test_choices_stand_best_first_each_with_its_boxes_and_its_interval():
    measured = {(0, 1): (0.2, 0.15, 0.3), (1, 2): (0.6, 0.5, 0.65)}
    left, right = choices_figure(3, measured, {(0, 1): "the first"}).axes
    blue, red = COLOURS["blue"], COLOURS["vermillion"]
    assert filled(left, 0) == [None, blue, blue]
    assert filled(left, 1) == [red, red, None]
    points = [tuple(bar[0].get_xydata()[0]) for bar in right.containers]
    assert points == [(60, 0), (20, 1)]
    ends = [bar[2][0].get_segments()[0][:, 0].tolist() for bar in right.containers]
    np.testing.assert_allclose(ends, [[50, 65], [15, 30]])
    assert [text.get_text() for text in right.texts] == ["", "the first"]


def test_over_seeds_is_a_mean_and_students_interval():
    mean, half = over_seeds(np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]))
    assert mean.tolist() == [2, 5]
    np.testing.assert_allclose(half, [4.303 * 1 / np.sqrt(3), 0], rtol=1e-3)


@pytest.mark.parametrize("n", range(2, 11))
def test_over_seeds_uses_the_quantile_of_its_number_of_seeds(n):
    stats = pytest.importorskip("scipy.stats")
    values = np.arange(float(n))[:, None]
    low, high = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values[:, 0]))
    _, [half] = over_seeds(values)
    assert half == pytest.approx((high - low) / 2, rel=1e-3)


def test_repair_has_a_line_per_choice_and_all_seeds_of_the_last_step():
    measured = {"ends": np.array([[0.5, 0.8], [0.5, 0.9]]), "first": np.array([[0.2, 0.6]] * 2)}
    left, right = repair_figure((0, 50), measured).axes
    lines = [bar[0].get_ydata().tolist() for bar in left.containers]
    np.testing.assert_allclose(lines, [[50, 85], [20, 60]])
    half = over_seeds(np.array([80.0, 90.0])[:, None])[1][0]
    ends = left.containers[0][2][0].get_segments()[1][:, 1]
    np.testing.assert_allclose(ends, [85 - half, 85 + half])
    seeds = [line.get_ydata().tolist() for line in right.lines if len(line.get_ydata()) == 2]
    np.testing.assert_allclose(seeds[0], [80, 90])
    assert [label.get_text() for label in left.get_xticklabels()] == ["0", "50"]
    assert [t.get_text() for t in left.get_legend().get_texts()] == ["ends", "first"]
    assert "50 steps" in right.get_title(loc="left")


def test_savings_has_a_bar_per_measure_and_the_papers_marks_on_the_right_ones():
    measured = {"parameters": 0.6, "bytes": 0.61, "time": 0.5}
    [axes] = savings_figure(measured, {"parameters": 0.6, "time": 0.62}).axes
    assert [bar.get_width() for bar in axes.containers[0]] == [60, 61, 50]
    [marks] = [line for line in axes.lines if line.get_label() == "the paper"]
    assert marks.get_xydata().tolist() == [[60, 0], [62, 2]]


def test_widths_stacks_the_parts_and_writes_the_total():
    counts = {
        "wide": {"words": 4_000_000, "layers": 6_000_000},
        "narrow": {"words": 2e6, "layers": 1e6},
    }
    [axes] = widths_figure(counts).axes
    words, layers = axes.containers
    assert [bar.get_width() for bar in words] == [4, 2]
    assert [bar.get_x() for bar in layers] == [4, 2]
    assert [bar.get_width() for bar in layers] == [6, 1]
    assert [text.get_text() for text in axes.texts] == ["10.0", "3.0"]


def test_likeness_has_a_map_per_moment_with_its_numbers():
    matrices = {"before": np.array([[1.0, 0.25]]), "after": np.array([[0.5, 0.75]])}
    before, after, _bar = likeness_figure(matrices).axes
    np.testing.assert_array_equal(before.images[0].get_array(), matrices["before"])
    assert [text.get_text() for text in after.texts] == ["0.50", "0.75"]
    assert [axes.get_title(loc="left") for axes in (before, after)] == ["before", "after"]


def test_guesses_stand_in_the_column_of_their_model_and_the_row_of_their_text():
    guesses = {"teacher": [("true", 0.9), ("sum", 0.4)], "cut": [("##x", 0.1), ("$a$", 0.2)]}
    axes, _bar = side_by_side(guesses, ["Returns [MASK].", "The [MASK] of all."]).axes
    words = {t.get_position(): t.get_text() for t in axes.texts}
    assert words == {(0, 0): "true", (0, 1): "sum", (1, 0): "##x", (1, 1): "$a$"}
    np.testing.assert_array_equal(axes.images[0].get_array(), [[0.9, 0.1], [0.4, 0.2]])
    heads = [label.get_text() for label in axes.get_yticklabels()]
    assert heads == ["Returns ____.", "The ____ of all."]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["teacher", "cut"]
