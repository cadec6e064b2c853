"""The figures of notebook 08 hold what they are given; the sliders prune what they say."""

from __future__ import annotations

import ipywidgets
import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from course_utils.classroom import pruning_figures
from course_utils.classroom.pruning_figures import (
    curves_figure,
    head_ranks,
    prune_by_slider,
    ranks_figure,
    slider_figure,
    tradeoff_figure,
)
from course_utils.compress.importance import Importance, by_chance, magnitude
from course_utils.compress.pruning import encoder_parameters
from course_utils.measure.accuracy import over_seeds_and_texts

SCORES = Importance(
    heads=(torch.tensor([0.3, 0.1, 0.9]), torch.tensor([0.5, 0.1, 0.2])),
    neurons=(torch.ones(4), torch.ones(4)),
)
ONE = np.array([[0.0, 100.0, 100.0, 0.0]])
THREE = np.array([[50.0, 60.0], [70.0, 80.0], [60.0, 40.0]])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=50,
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=20,
            max_position_embeddings=16,
        )
    )


# The rankings


def test_the_lowest_score_goes_first_and_of_equals_the_lower_layer():
    assert head_ranks(SCORES).tolist() == [[3, 0, 5], [4, 1, 2]]


def test_each_ranking_has_a_map_with_a_cross_on_the_half_that_goes():
    other = Importance(tuple(-layer for layer in SCORES.heads), SCORES.neurons)
    first, second, _ = ranks_figure({"magnitude": SCORES, "reversed": other}).axes
    assert first.images[0].get_array().tolist() == [[3, 0, 5], [4, 1, 2]]
    [crosses] = first.lines
    assert sorted(map(tuple, crosses.get_xydata())) == [(1, 0), (1, 1), (2, 1)]
    assert sorted(map(tuple, second.lines[0].get_xydata())) == [(0, 0), (0, 1), (2, 0)]
    assert first.get_title(loc="left") == "magnitude"
    bottom, top = first.get_ylim()
    assert bottom < top  # layer 0 is below


# Curves and trade-offs


def bars(axes):
    """(points, ends of the intervals) of each line with intervals."""
    return [
        (bar[0].get_xydata(), np.array([s[:, 1] for s in bar[2][0].get_segments()]))
        for bar in axes.containers
    ]


def interval(measured):
    mean, half = over_seeds_and_texts(measured)
    return [mean - half, mean + half]


def test_curves_have_their_means_and_intervals_in_each_panel():
    panels = {
        "before": {"heads": [(0.25, ONE), (0.5, ONE)], "layers": [(0.4, THREE)]},
        "after": {"heads": [(0.25, THREE)], "layers": [(0.4, ONE)]},
    }
    before, after = curves_figure("?", panels, xlabel="gone, %", line=80.0).axes
    (points, ends), (other, _) = bars(before)
    np.testing.assert_allclose(points, [[25, 50], [50, 50]])
    np.testing.assert_allclose(ends, [interval(ONE)] * 2)
    np.testing.assert_allclose(other, [[40, 60]])
    np.testing.assert_allclose(bars(after)[0][1], [interval(THREE)])
    for axes in (before, after):
        assert [80, 80] in [list(line.get_ydata()) for line in axes.lines]
        assert axes.get_xlabel() == "gone, %"
    assert [t.get_text() for t in before.get_legend().get_texts()] == ["heads", "layers"]
    assert before.get_title(loc="left") == "before"


def test_tradeoffs_stand_at_their_costs_with_names_below_them():
    costs = {"MB": [90.0, 60.0], "GFLOP": [0.5, 0.2]}
    right = {"repaired": [ONE, THREE], "as cut": [THREE, ONE]}
    left, other = tradeoff_figure(costs, right, ["all", "half"]).axes
    (points, ends), (below, _) = bars(left)
    np.testing.assert_allclose(points, [[90, 50], [60, 60]])
    np.testing.assert_allclose(ends, [interval(ONE), interval(THREE)])
    np.testing.assert_allclose(below, [[90, 60], [60, 50]])
    np.testing.assert_allclose(bars(other)[0][0][:, 0], [0.5, 0.2])
    assert [(t.get_text(), tuple(t.xy)) for t in left.texts] == [
        ("all", (90.0, 0)),
        ("half", (60.0, 0)),
    ]
    assert not other.texts
    assert (left.get_xlabel(), other.get_xlabel()) == ("MB", "GFLOP")


def test_the_map_has_every_number_where_it_belongs():
    percent = np.array([[80.0, 70.0, 41.4], [60.0, 50.0, 30.0], [20.0, 15.0, 12.0]])
    axes = slider_figure([0, 0.5, 0.9], percent).axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells[2, 0] == "41"
    assert cells[0, 2] == "20"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "50", "90"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("heads gone, %", "neurons gone, %")


# Sliders


@pytest.fixture
def box(model, monkeypatch):
    """The widget, and the list of models it has asked about."""
    shown, asked = [], []
    monkeypatch.setattr(pruning_figures, "display", shown.append)

    def accuracy(small):
        asked.append(small)
        return 0.375

    prune_by_slider(model, {"magnitude": magnitude(model), "chance": by_chance(model, 0)}, accuracy)
    [found] = shown
    return found, asked


def test_the_sliders_begin_with_the_whole_model(box, model):
    [_, heads, neurons, table], [whole] = box[0].children, box[1]
    assert (heads.value, neurons.value) == (0, 0)
    assert encoder_parameters(whole) == encoder_parameters(model)
    assert "38 %" in table.value
    assert "100 %" in table.value


def test_a_move_removes_what_it_says(box, model):
    [_, heads, neurons, table], asked = box[0].children, box[1]
    heads.value = 0.5
    assert asked[-1].config.heads_per_layer == [2, 2]
    assert asked[-1].config.neurons_per_layer == [20, 20]
    neurons.value = 0.75
    assert asked[-1].config.neurons_per_layer == [5, 5]
    left = encoder_parameters(asked[-1]) / encoder_parameters(model)
    assert f"width:{100 * left:.0f}%" in table.value
    assert model.config.num_attention_heads == 4
    assert model.bert.encoder.layer[0].intermediate.dense.out_features == 20


def test_the_other_ranking_keeps_others(box):
    [ranking, heads, *_], asked = box[0].children, box[1]
    heads.value = 0.75
    before = asked[-1].state_dict()
    ranking.value = "chance"
    after = asked[-1].state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_the_ends_of_the_sliders_leave_a_model(box):
    [_, heads, neurons, _], asked = box[0].children, box[1]
    assert isinstance(heads, ipywidgets.FloatSlider)
    heads.value, neurons.value = heads.max, neurons.max
    assert asked[-1].config.heads_per_layer == [1, 1]
    assert asked[-1].config.neurons_per_layer == [1, 1]
    assert not heads.continuous_update
