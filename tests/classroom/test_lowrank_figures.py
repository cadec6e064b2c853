"""The figures of notebook 09 hold what they are given, in its place and under its name."""

import ipywidgets
import numpy as np
import pytest
import torch

from course_utils.classroom import lowrank_figures
from course_utils.classroom.lowrank_figures import (
    break_even_figure,
    energy_figure,
    parts_figure,
    rank_figure,
    rank_viewer,
    sizes_figure,
)
from course_utils.measure.accuracy import over_seeds_and_texts

WEIGHT, OUTPUTS = torch.tensor([4.0, 2.0, 2.0, 1.0]), torch.tensor([9.0, 3.0, 1.0, 0.0])


def line_of(axes, name):
    [line] = [line for line in axes.lines if line.get_label() == name]
    return line


def test_break_even_has_a_line_per_shape_and_marks_where_it_crosses():
    [axes] = break_even_figure({"square": (8, 8), "wide": (4, 12)}).axes
    square, wide = line_of(axes, "square: 8 x 8"), line_of(axes, "wide: 4 x 12")
    np.testing.assert_allclose(square.get_xydata(), [[0, 0], [100, 200]])
    np.testing.assert_allclose(wide.get_xydata(), [[0, 0], [100, 100 * 4 * 16 / 48]])
    marks = [
        line.get_xydata().ravel().tolist() for line in axes.lines if len(line.get_xdata()) == 1
    ]
    assert marks == [[50, 100], [75, 100]]
    assert [text.get_text() for text in axes.texts] == ["rank 4", "rank 3"]


def test_energy_starts_at_nothing_and_ends_at_all_with_the_break_even_rank_beside_it():
    panels = {"query": {"weight": WEIGHT, "outputs": OUTPUTS}, "feed": {"weight": WEIGHT}}
    query, feed = energy_figure(panels, [(4, 4), (4, 12)]).axes
    held = line_of(query, "weight")
    np.testing.assert_allclose(held.get_xdata(), range(5))
    np.testing.assert_allclose(held.get_ydata(), [0, 64, 80, 96, 100])
    np.testing.assert_allclose(line_of(query, "outputs").get_ydata()[1], 100 * 81 / 91)
    dotted = [line_of(axes, "break-even rank").get_xdata()[0] for axes in (query, feed)]
    assert dotted == [2, 3]
    assert [axes.get_title(loc="left") for axes in (query, feed)] == ["query", "feed"]


@pytest.mark.parametrize(("rank", "shares"), [(1, [50, 64, 89]), (3, [150, 96, 100])])
def test_a_rank_shows_what_it_costs_and_what_it_keeps(rank, shares):
    fig = rank_figure(WEIGHT, OUTPUTS, (4, 4), rank)
    left, right = fig.axes
    np.testing.assert_allclose(line_of(left, "weight").get_ydata(), [1, 0.5, 0.5, 0.25])
    assert line_of(left, "outputs").get_ydata().min() > 0  # a logarithmic axis has no zero
    [kept] = left.patches
    assert kept.get_x() + kept.get_width() == rank + 0.5
    assert [round(bar.get_width()) for bar in right.patches] == shares
    names = ["numbers stored", "energy of the weight", "energy of the outputs"]
    named = [f"{name}: {share} %" for name, share in zip(names, shares, strict=True)]
    assert [label.get_text() for label in right.get_yticklabels()] == named
    assert f"rank {rank}" in fig.get_suptitle()


def test_the_slider_reaches_every_rank_and_draws_again(monkeypatch):
    shown, drawn = [], []
    draw = lowrank_figures.rank_figure

    def watched(weight, outputs, shape, rank):
        drawn.append(rank)
        return draw(weight, outputs, shape, rank)

    monkeypatch.setattr(lowrank_figures, "display", shown.append)
    monkeypatch.setattr(lowrank_figures, "rank_figure", watched)
    rank_viewer(WEIGHT, OUTPUTS, (4, 6), rank=2)
    [box] = shown
    assert repr(box) == "(A slider for the rank. It needs a running kernel.)"
    slider, picture = box.children
    assert isinstance(slider, ipywidgets.IntSlider)
    assert (slider.min, slider.value, slider.max) == (1, 2, 4)
    before = picture.value
    assert "base64,iVBORw0KGgo" in before
    slider.value = 4
    assert drawn == [2, 4]
    assert picture.value != before
    assert 'alt="Rank 4 keeps, of the whole: numbers stored: ' in picture.value


def test_sizes_have_a_line_per_way_before_and_its_points_after():
    one, other = np.array([100.0, 0, 100, 100]), np.array([0.0, 0, 100, 0])
    before = {"plain": [one, other], "texts": [one, one]}
    after = {"plain": {0.5: np.stack([one, other])}, "texts": {0.5: np.stack([one, one])}}
    fig = sizes_figure([0.75, 0.5], before, after, 80.0)
    left, right = fig.axes
    assert [bar[0].get_ydata().tolist() for bar in left.containers] == [[75, 25], [75, 75]]
    assert [bar[0].get_ydata().tolist() for bar in right.containers] == [[50], [75]]
    for axes, places in ((left, [75, 50]), (right, [50])):
        for bar in axes.containers:
            np.testing.assert_allclose(bar[0].get_xdata(), places, atol=1)
        assert [80, 80] in [list(line.get_ydata()) for line in axes.lines]
    half = over_seeds_and_texts(np.stack([one, other]))[1]
    ends = right.containers[0][2][0].get_segments()[0][:, 1]
    np.testing.assert_allclose(ends, [50 - half, 50 + half])
    assert left.get_xlim()[0] > left.get_xlim()[1]  # smaller to the right
    names = [text.get_text() for text in fig.legends[0].get_texts()]
    assert sorted(names) == ["plain", "teacher", "texts"]


def test_parts_are_stacked_with_the_total_and_the_share_of_the_first():
    counts = {
        "large": {"table": 30_000_000, "layers": 60_000_000, "rest": 10_000_000},
        "small": {"table": 10_000_000, "layers": 9_000_000, "rest": 1_000_000},
    }
    fig = parts_figure(counts, "Who?")
    [axes] = fig.axes
    assert [[bar.get_width() for bar in part] for part in axes.containers] == [
        [30, 10],
        [60, 9],
        [10, 1],
    ]
    assert [bar.get_x() for bar in axes.containers[2]] == [90, 19]
    assert [text.get_text() for text in axes.texts] == ["100.0, 30% table", "20.0, 50% table"]
    assert axes.get_title(loc="left") == "Who?"
