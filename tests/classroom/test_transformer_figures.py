"""The figures of notebook 01 hold what they are given, in its place and under its name."""

import numpy as np
import pytest
import torch

from course_utils.classroom.transformer_figures import (
    BRANCH,
    STREAM,
    blocks_figure,
    cost_figure,
    gradient_figure,
    learning_figure,
    meaning_figure,
    positions_figure,
    saturation_figure,
    similarities,
)


@pytest.mark.parametrize(
    ("which", "title", "order"),
    [
        (0, "post-LN", ["attention", "+", "norm", "feed-forward", "+", "norm"]),
        (1, "pre-LN", ["norm", "attention", "+", "norm", "feed-forward", "+"]),
    ],
)
def test_the_parts_stand_in_the_order_of_the_calculation(which, title, order):
    axes = blocks_figure().axes[which]
    assert axes.get_title(loc="left").startswith(title)
    parts = sorted(
        (text for text in axes.texts if text.get_text()), key=lambda text: text.get_position()[0]
    )
    assert [text.get_text() for text in parts] == order
    height = {text.get_text(): text.get_position()[1] for text in parts}
    assert height["norm"] == (BRANCH if which else STREAM)
    assert height["attention"] == height["feed-forward"] == BRANCH


def lines_of(axes):
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines}


def test_a_word_moves_from_its_place_to_where_each_text_takes_it():
    places = {"bank": (1, 1), "loan": (0, 2)}
    [axes] = meaning_figure("bank", places, {"the bank loan": (0.5, 1.4)}).axes
    assert [tuple(line.get_xydata()[0]) for line in axes.lines] == list(places.values())
    [arrow] = [text for text in axes.texts if text.arrow_patch is not None]
    assert (tuple(arrow.xyann), tuple(arrow.xy)) == ((1, 1), (0.5, 1.4))
    words = {text.get_text(): tuple(text.xy) for text in axes.texts if text.get_text()}
    assert words == {**places, "in “the bank loan”": (0.5, 1.4)}
    assert "“bank”" in axes.get_title(loc="left")


def test_saturation_has_a_panel_per_measure_with_both_lines():
    figure = saturation_figure(
        [4, 16], {"variance": [(4, 1), (16, 1)], "largest": [(0.4, 0.2)] * 2}
    )
    variance, largest = figure.axes
    assert lines_of(variance) == {"as they are": [4, 16], "divided by √d": [1, 1]}
    assert lines_of(largest) == {"as they are": [0.4, 0.4], "divided by √d": [0.2, 0.2]}
    assert (variance.get_yscale(), largest.get_yscale()) == ("log", "linear")


def test_gradients_of_the_last_block_by_depth_and_of_all_blocks_of_the_deepest():
    norms = {"post-LN": {2: torch.tensor([1.0, 2.0]), 4: torch.tensor([3.0, 4.0, 5.0, 6.0])}}
    last, each = gradient_figure([2, 4], norms).axes
    assert lines_of(last) == {"post-LN": [2.0, 6.0]}
    assert lines_of(each) == {"post-LN": [3.0, 4.0, 5.0, 6.0]}


def test_similarities_are_cosines_around_the_mean_row():
    table = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 3.0], [0.0, -3.0]]) + 7
    wanted = [[1, -1, 0, 0], [-1, 1, 0, 0], [0, 0, 1, -1], [0, 0, -1, 1]]
    assert similarities(table).tolist() == wanted
    figure = positions_figure({"computed": table, "learned": table.flip(0)})
    computed, learned, _colour_bar = figure.axes
    np.testing.assert_array_equal(computed.images[0].get_array(), wanted)
    assert [axes.get_title(loc="left") for axes in (computed, learned)] == ["computed", "learned"]


def test_cost_has_time_and_memory_with_the_pairs_apart_from_the_rest():
    time, memory = cost_figure([64, 128], [(1, 5), (4, 10)], [(2, 7), (8, 14)]).axes
    pairs, rest = lines_of(time)
    assert pairs.startswith("pairs")
    assert lines_of(time) == {pairs: [1, 4], rest: [5, 10]}
    assert lines_of(memory) == {pairs: [2, 8], rest: [7, 14]}


def test_learning_curves_are_means_of_steps():
    figure = learning_figure("Which learns?", {"two": [0, 1, 1, 1], "one": [0, 0, 0, 1]}, mean_of=2)
    [axes] = figure.axes
    assert lines_of(axes) == {"two": [0.5, 1.0], "one": [0.0, 0.5]}
    assert list(axes.lines[0].get_xdata()) == [2, 4]
