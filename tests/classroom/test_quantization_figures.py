"""The figures of notebook 10 hold what they are given; the sliders quantize what they say."""

from __future__ import annotations

import ipywidgets
import numpy as np
import pytest
import torch

from course_utils.classroom import quantization_figures
from course_utils.classroom.plots import png
from course_utils.classroom.quantization_figures import (
    cuts_figure,
    files_figure,
    methods_figure,
    outliers_figure,
    quantize_by_slider,
    stairs_figure,
)
from course_utils.compress.calibration_ranges import min_max, summarise
from course_utils.compress.quantization import affine, dequantize, quantize_tensor
from course_utils.measure.accuracy import over_seeds_and_texts

X = torch.tensor([-1.0, -0.4, 0.0, 0.3, 0.55, 2.0])
ONE, TWO = np.array([0.0, 100.0, 100.0]), np.array([0.0, 0.0, 100.0])


@pytest.fixture
def seen():
    values = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    values[:, 4] *= 20
    return summarise(lambda: [("layer", values)])["layer"]


def titles(fig):
    return [axes.get_title(loc="left") for axes in fig.axes]


def test_our_numbers_stand_on_the_stairs():
    ways = {"symmetric": affine(X, bits=3, symmetric=True), "other": affine(X, symmetric=False)}
    fig = stairs_figure(X, ways)
    assert titles(fig) == list(ways)
    for axes, q in zip(fig.axes, ways.values(), strict=True):
        stored = dequantize(quantize_tensor(X, q), q)
        straight, stairs, ours = axes.lines
        np.testing.assert_allclose(ours.get_xydata(), torch.stack([X, stored], 1), atol=1e-6)
        np.testing.assert_array_equal(*straight.get_data())
        assert len(set(stairs.get_ydata().tolist())) <= q.high - q.low + 1
        assert (stairs.get_ydata() > stairs.get_xdata()).any()  # beyond the ends it is clipped
    steps = fig.axes[0].lines[1].get_ydata() / (2 / 3)  # no number is near enough to -3
    assert set(steps.round(3).tolist()) == {-2, -1, 0, 1, 2, 3}


def test_the_largest_input_is_marked_and_the_median_drawn(seen):
    [axes] = outliers_figure({"a layer": seen}).axes
    mark, median = axes.lines
    assert mark.get_xydata().tolist() == [[4, pytest.approx(seen.channel_max[4].item())]]
    assert median.get_ydata()[0] == pytest.approx(np.median(seen.channel_max.numpy()))
    [bars] = axes.collections
    assert [segment[1, 1] for segment in bars.get_segments()] == pytest.approx(
        seen.channel_max.tolist()
    )
    assert axes.get_yscale() == "log"


def test_an_input_that_was_always_zero_does_not_break_the_axis():
    values = torch.tensor([[0.0, 1.0], [0.0, -3.0]])
    seen = summarise(lambda: [("layer", values)])["layer"]
    assert png(outliers_figure({"a layer": seen})).startswith(b"\x89PNG")


def test_every_cut_is_two_lines_over_the_histogram(seen):
    cuts = {"min-max": min_max(seen), "narrow": (-1.0, 2.0)}
    [axes] = cuts_figure({"a layer": (seen, cuts)}).axes
    assert [line.get_xdata()[0] for line in axes.lines] == [seen.low, seen.high, -1.0, 2.0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(cuts)
    [histogram] = axes.patches
    assert histogram.get_data().values.sum() == seen.counts.sum() == 3000
    assert histogram.get_data().edges[[0, -1]].tolist() == [seen.low, seen.high]


def test_bars_add_up_and_say_their_sum():
    files = {"float32": {"tables": 40.0, "layers": 50.0}, "int8": {"tables": 10.0, "layers": 12.5}}
    [axes] = files_figure(files).axes
    assert [bar.get_width() for bar in axes.patches] == [40, 10, 50, 12.5]
    assert [bar.get_x() for bar in axes.patches] == [0, 0, 40, 10]
    assert [text.get_text().strip() for text in axes.texts] == ["90.0", "22.5"]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(files)
    bottom, top = axes.get_ylim()
    assert bottom > top  # the first file is above


def test_each_method_has_its_cost_and_its_interval():
    costs = {"MB": {"float32": 90.0, "int8": 23.0}, "ms": {"float32": 8.0, "int8": 3.0}}
    right = {"float32": ONE, "int8": TWO}
    fig = methods_figure(costs, right)
    for axes, (label, cost) in zip(fig.axes, costs.items(), strict=True):
        assert (axes.get_xlabel(), axes.get_xscale()) == (label, "log")
        for bar, (name, hits) in zip(axes.containers, right.items(), strict=True):
            mean, half = over_seeds_and_texts(hits)
            assert bar[0].get_xydata().tolist() == [[cost[name], mean]]
            [segment] = bar[2][0].get_segments()
            assert segment[:, 1].tolist() == pytest.approx([mean - half, mean + half])
            assert bar.get_label() == name


def test_the_sliders_quantize_what_they_say(monkeypatch):
    drawn, shown = [], []

    def figure(x, ways):
        drawn.append(ways)
        return stairs_figure(x, ways)

    monkeypatch.setattr(quantization_figures, "stairs_figure", figure)
    monkeypatch.setattr(quantization_figures, "display", shown.append)
    quantize_by_slider(X)
    bits, form, keep, picture = shown[0].children
    assert isinstance(bits, ipywidgets.IntSlider)
    [(name, q)] = drawn[-1].items()
    assert (q.bits, q.signed, q.scale.item()) == (3, True, pytest.approx(2 / 3))
    assert "clipping 0" in name
    before = picture.value
    bits.value = 4
    form.value = "asymmetric"
    keep.value = 0.5
    [(name, q)] = drawn[-1].items()
    assert (q.bits, q.signed) == (4, False)
    assert q.scale.item() == pytest.approx(1.5 / 15)
    assert "clipping 0." in name
    assert picture.value != before
    assert f'alt="Numbers and their stairs, 4 bits, asymmetric; {name}."' in picture.value
