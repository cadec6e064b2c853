"""The figures of notebook 03 hold what they are given, in its place and under its name."""

from __future__ import annotations

import math

import ipywidgets
import numpy as np
import pytest
import torch

from course_utils.classroom import loss_figures
from course_utils.classroom.loss_figures import (
    ablation_figure,
    entropy_figure,
    humps_figure,
    likeness,
    likeness_figure,
    softened,
    temperature_figure,
    temperature_slider,
)
from course_utils.errors import DataError

LABELS = ["numpy", "scipy", "torch"]
ONE = torch.tensor([3.0, 1.0, 0.0])
MANY = torch.tensor([[3.0, 1.0, 0.0], [0.0, 0.0, 0.0], [-1.0, 5.0, 2.0]])


def widths(axes):
    return [patch.get_width() for patch in axes.patches]


def test_softened_measures_are_means_over_the_texts():
    means = softened(MANY, [1.0, 4.0])
    for k, temperature in enumerate((1.0, 4.0)):
        rows = (MANY / temperature).softmax(-1).tolist()
        entropy = sum(-p * math.log(p) for row in rows for p in row) / 3
        assert means["entropy"][k] == pytest.approx(entropy, rel=1e-5)
        for n in (1, 2, 3):
            mass = sum(sum(sorted(row)[-n:]) for row in rows) / 3
            assert means[f"top {n}"][k] == pytest.approx(mass, rel=1e-5)


def test_cold_logits_have_no_entropy_and_no_nan():
    means = softened(torch.tensor([[1000.0, 0.0, -1000.0]]), [0.25])
    assert means["entropy"][0] == 0
    assert means["top 1"][0] == 1


def test_the_bars_are_the_softmax_at_each_temperature_first_class_on_top():
    figure = temperature_figure(ONE, MANY, LABELS, temperatures=(0.5, 8.0))
    cold, hot, entropy, mass = figure.axes
    for axes, temperature in ((cold, 0.5), (hot, 8.0)):
        assert widths(axes) == pytest.approx((ONE / temperature).softmax(-1).tolist(), rel=1e-5)
        assert axes.get_title(loc="left") == f"T = {temperature:g}"
        bottom, top = axes.get_ylim()
        assert bottom > top
    assert [label.get_text() for label in cold.get_yticklabels()] == LABELS
    marks = [line.get_xdata()[0] for line in mass.lines if len(line.get_xdata()) == 2]
    assert marks == [0.5, 8.0]
    curve = entropy.lines[0]
    means = softened(MANY, curve.get_xdata())
    np.testing.assert_allclose(curve.get_ydata(), means["entropy"])
    assert [line.get_label() for line in mass.lines[:1]] == ["the 3 best"]
    assert {text.get_text() for text in mass.get_legend().texts} == {
        "the best class",
        "the 2 best",
        "the 3 best",
    }


def test_labels_that_do_not_fit_are_refused_in_words():
    with pytest.raises(DataError, match=r"2 labels do not fit logits of shape \(3,\)"):
        temperature_figure(ONE, MANY, LABELS[:2])


def test_the_slider_goes_from_a_quarter_to_twenty_and_draws_again(monkeypatch):
    shown, drawn = [], []
    draw = loss_figures.temperature_figure

    def watched(*arguments, temperatures, **options):
        drawn.append(temperatures)
        return draw(*arguments, temperatures=temperatures, **options)

    monkeypatch.setattr(loss_figures, "display", shown.append)
    monkeypatch.setattr(loss_figures, "temperature_figure", watched)
    temperature_slider(ONE, MANY, LABELS, name="a text")
    [box] = shown
    assert repr(box) == "(A slider for the temperature. It needs a running kernel.)"
    slider, picture = box.children
    assert isinstance(slider, ipywidgets.FloatLogSlider)
    assert (slider.base**slider.min, slider.base**slider.max) == pytest.approx((0.25, 20))
    assert drawn == [[2.0]]
    before = picture.value
    assert "base64,iVBORw0KGgo" in before
    slider.value = 8.0
    assert drawn[1:] == [[8.0]]
    assert picture.value != before
    assert 'alt="At T = 8, a text: ' in picture.value


def test_likeness_shares_out_what_a_text_does_not_give_to_its_own_class():
    probs = torch.tensor([[0.5, 0.3, 0.2], [0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    table = likeness(probs, [0, 0, 1])
    wanted = [[0.0, (0.6 + 1.0) / 2, (0.4 + 0.0) / 2], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    torch.testing.assert_close(table, torch.tensor(wanted, dtype=torch.float64))


def test_likeness_maps_write_per_cents_off_the_diagonal():
    table = torch.tensor([[0.0, 0.75, 0.25], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    ours, theirs = likeness_figure({"ours": table, "theirs": table.flip(0)}, LABELS).axes
    np.testing.assert_allclose(ours.images[0].get_array(), table)
    np.testing.assert_allclose(theirs.images[0].get_array(), table.flip(0))
    assert [text.get_text() for text in ours.texts] == ["75", "25", "100", "0", "50", "50"]
    assert [axes.get_title(loc="left") for axes in (ours, theirs)] == ["ours", "theirs"]


def test_a_cross_entropy_is_cut_where_the_entropy_ends():
    p = torch.tensor([0.1, 0.2, 0.7])
    [axes] = entropy_figure(p, {"itself": p, "q": torch.tensor([0.2, 0.3, 0.5])}).axes
    assert widths(axes) == pytest.approx([0.8018, 0.8018, 0.0, 0.0851], abs=5e-5)
    assert [patch.get_x() for patch in axes.patches] == pytest.approx(
        [0, 0, 0.8018, 0.8018], abs=5e-5
    )
    assert axes.texts[1].get_text().strip() == "0.8018 + 0.0851 = 0.8869"


def test_humps_hold_the_target_and_each_fit():
    x = torch.linspace(-1, 1, 5)
    [axes] = humps_figure(x, x.square(), {"forward": x + 1, "reverse": 1 - x}).axes
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert lines == {"forward": (x + 1).tolist(), "reverse": (1 - x).tolist()}
    assert axes.collections[0].get_label() == "p, the target"


def test_an_ablation_has_the_papers_bars_and_ours_with_a_dot_per_seed():
    paper = {"no soft": -2.96, "no MLM": -0.31}
    ours = {"no soft": [-1.0, -3.0], "no MLM": [1.0, 0.0], "random": [-40.0, -42.0]}
    left, right = ablation_figure(paper, ours, unit="points", lowest=-10).axes
    assert widths(left) == [-2.96, -0.31]
    assert [text.get_text().strip() for text in left.texts] == ["-2.96", "-0.31"]
    assert widths(right) == [-2.0, 0.5, -41.0]
    dots = [list(line.get_xdata()) for line in right.lines if line.get_marker() == "o"]
    assert dots == list(ours.values())
    assert right.get_xlabel() == "points"
    assert right.get_xlim() == pytest.approx((-10, 1.2))
    assert [text.get_text() for text in right.texts] == [" ← -41"]
