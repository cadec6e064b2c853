"""The attention figure draws the head it is asked for; the viewer's sliders draw it again."""

from __future__ import annotations

import ipywidgets
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from course_utils.classroom import attention_view
from course_utils.classroom.attention_view import (
    attention_figure,
    attention_grid,
    attention_viewer,
)
from course_utils.classroom.plots import COLOURS
from course_utils.errors import CourseError, DataError

TOKENS = ["the", "river", "$_bank_$"]
WARM = COLOURS["vermillion"]


@pytest.fixture
def weights() -> torch.Tensor:
    """Two layers of four heads over three tokens: (L, A, S, S), rows that add up to 1."""
    scores = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    return torch.softmax(2 * scores, dim=-1)


def parts(figure):
    heat, lines, _colour_bar = figure.axes
    return heat, lines


@pytest.mark.parametrize(("layer", "head"), [(0, 0), (1, 3)])
def test_the_map_holds_the_weights_of_this_layer_and_head(weights, layer, head):
    figure = attention_figure(weights, TOKENS, layer=layer, head=head)
    heat, _ = parts(figure)
    drawn = np.asarray(heat.images[0].get_array())
    np.testing.assert_array_equal(drawn, weights[layer, head].numpy())
    assert heat.images[0].get_clim() == (0, 1)  # one scale: two figures can be compared
    assert [float(text.get_text()) for text in heat.texts] == pytest.approx(
        weights[layer, head].flatten().tolist(), abs=0.005
    )
    for labels in (heat.get_xticklabels(), heat.get_yticklabels()):
        assert [label.get_text() for label in labels] == TOKENS
    assert figure.get_suptitle() == f"Where does each token look? Layer {layer}, head {head}"


@pytest.mark.parametrize(
    "form",
    [
        lambda w: w,
        lambda w: w.numpy(),
        lambda w: list(w),
        lambda w: w.requires_grad_().double(),
        lambda w: w.tolist(),
    ],
    ids=["tensor", "array", "list of layers", "with gradient", "nested lists"],
)
def test_weights_come_in_any_container(weights, form):
    wanted = weights[1, 2].numpy().copy()
    heat, _ = parts(attention_figure(form(weights), TOKENS, layer=1, head=2))
    np.testing.assert_allclose(np.asarray(heat.images[0].get_array()), wanted, rtol=1e-6)


def test_one_layer_needs_no_layer_axis(weights):
    heat, _ = parts(attention_figure(weights[1], TOKENS, head=2))
    np.testing.assert_array_equal(np.asarray(heat.images[0].get_array()), weights[1, 2].numpy())


def test_the_chosen_token_is_set_off_in_the_map_the_lines_and_the_title(weights):
    figure = attention_figure(weights, TOKENS, layer=1, head=0, token=2)
    heat, lines = parts(figure)
    assert figure.get_suptitle() == "Where does token 2, “$_bank_$”, look? Layer 1, head 0"
    [frame] = heat.patches
    assert frame.get_bbox().bounds == (-0.5, 1.5, 3, 1)
    warm = [line for line in lines.lines if to_rgb(line.get_color()) == to_rgb(WARM)]
    assert [tuple(line.get_ydata()) for line in warm] == [(2, column) for column in range(3)]
    assert [text.get_text() for text in lines.texts if text.get_fontweight() == "bold"] == [
        TOKENS[2]
    ]


def test_without_a_token_nothing_is_set_off_and_large_weights_are_thick_lines():
    weights = np.array([[[0.9, 0.1, 0.0], [0.0, 1.0, 0.0], [0.3, 0.3, 0.4]]])
    heat, lines = parts(attention_figure(weights, TOKENS))
    assert not heat.patches
    drawn = {tuple(map(int, line.get_ydata())): line.get_linewidth() for line in lines.lines}
    assert set(drawn) == {(0, 0), (0, 1), (1, 1), (2, 0), (2, 1), (2, 2)}  # none for a zero
    assert drawn[1, 1] > drawn[0, 0] > drawn[2, 2] > drawn[2, 0] == drawn[2, 1] > drawn[0, 1]


def test_numbers_are_written_only_where_there_is_room():
    weights = np.full((1, 9, 9), 1 / 9)
    heat, _ = parts(attention_figure(weights, list("abcdefghi")))
    assert not heat.texts


def test_a_grid_has_a_map_per_title_and_labels_only_outside(weights):
    maps = {f"map {k}": weights[0, k] for k in range(3)}
    figure = attention_grid("Which?", maps, TOKENS, columns=2)
    assert figure.get_suptitle() == "Which?"
    drawn = figure.axes[:3]
    assert [axes.get_title(loc="left") for axes in drawn] == list(maps)
    for axes, wanted in zip(drawn, maps.values(), strict=True):
        np.testing.assert_array_equal(np.asarray(axes.images[0].get_array()), wanted.numpy())
    assert [axes.get_ylabel() for axes in drawn] == ["looks", "", "looks"]


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2, 4, 3, 4), r"\(2, 4, 3, 4\) do not fit 3 tokens"),
        ((2, 4, 5, 5), r"\(2, 4, 5, 5\) do not fit 3 tokens"),
        ((3, 3), r"\(1, 3, 3\)|\(3, 3\)"),
        ((1, 2, 4, 3, 3), r"take one text first: weights\[0\]"),
        ((0, 3, 3), "do not fit"),
    ],
)
def test_weights_of_another_shape_are_refused_in_words(shape, words):
    with pytest.raises(DataError, match=words):
        attention_figure(np.ones(shape), TOKENS)


def test_layers_of_several_shapes_are_named(weights):
    with pytest.raises(DataError, match=r"several shapes: \[\(2, 3, 3\), \(4, 3, 3\)\]"):
        attention_figure([weights[0], weights[1, :2]], TOKENS)


@pytest.mark.parametrize("wish", [{"layer": 2}, {"head": 4}, {"token": 3}, {"head": -1}])
def test_a_layer_head_or_token_that_is_not_there_says_which_are(weights, wish):
    [(name, number)] = wish.items()
    most = {"layer": 1, "head": 3, "token": 2}[name]
    with pytest.raises(CourseError, match=rf"no {name} {number}\.[\s\S]*from 0 to {most}\."):
        attention_figure(weights, TOKENS, **wish)


def test_the_sliders_reach_everything_and_draw_again(weights, monkeypatch):
    shown, drawn = [], []
    draw = attention_view.attention_figure

    def watched(maps, tokens, **where):
        drawn.append(where)
        return draw(maps, tokens, **where)

    monkeypatch.setattr(attention_view, "display", shown.append)
    monkeypatch.setattr(attention_view, "attention_figure", watched)
    attention_viewer(weights, TOKENS, head=1, token=2)
    [box] = shown
    assert repr(box) == "(Sliders for layer, head and token. They need a running kernel.)"
    *sliders, picture = box.children
    assert all(isinstance(slider, ipywidgets.IntSlider) for slider in sliders)
    assert [(s.description, s.min, s.value, s.max) for s in sliders] == [
        ("layer", 0, 0, 1),
        ("head", 0, 1, 3),
        ("token", 0, 2, 2),
    ]
    before = picture.value
    assert "base64,iVBORw0KGgo" in before
    sliders[1].value = 3
    assert drawn == [
        {"layer": 0, "head": 1, "token": 2},
        {"layer": 0, "head": 3, "token": 2},
    ]
    assert picture.value != before
    assert 'alt="Attention weights of layer 0, head 3. Token 2, ' in picture.value
