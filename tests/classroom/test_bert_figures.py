"""The figures of notebook 02 draw the numbers they are given."""

from __future__ import annotations

import numpy as np
import pytest

from course_utils.classroom.bert_figures import (
    PARTS,
    REST,
    guesses_figure,
    layers_figure,
    merge_small,
    parts_figure,
)
from course_utils.classroom.plots import png
from course_utils.models import anatomy

ROWS = [
    {"model": "big", "part": "word embeddings", "amount": 300, "share": 0.3},
    {"model": "big", "part": "pooler", "amount": 10, "share": 0.01},
    {"model": "big", "part": "attention", "amount": 690, "share": 0.69},
    {"model": "small", "part": "word embeddings", "amount": 198, "share": 0.99},
    {"model": "small", "part": "pooler", "amount": 2, "share": 0.01},
    {"model": "small", "part": "attention", "amount": 0, "share": 0.0},
]


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def test_small_parts_become_one_and_nothing_is_lost():
    assert merge_small(ROWS) == {
        "big": {"word embeddings": 300, "attention": 690, REST: 10},
        "small": {"word embeddings": 198, "attention": 0, REST: 2},
    }


def test_where_nothing_is_left_over_there_is_no_rest():
    rows = [row for row in ROWS if row["part"] != "pooler"]
    assert all(REST not in amounts for amounts in merge_small(rows).values())
    empty = {"model": "big", "part": "type embeddings", "amount": 0, "share": 0.0}
    assert all(REST not in amounts for amounts in merge_small([*rows, empty]).values())


def test_a_bar_is_the_shares_of_its_model_and_names_its_total():
    fig = parts_figure(ROWS, per=100, unit="hundreds", title="Who?")
    [axes] = fig.axes
    assert axes.get_title(loc="left") == "Who?"
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "big\n10.0 hundreds",
        "small\n2.0 hundreds",
    ]
    widths = [[bar.get_width() for bar in group] for group in axes.containers]
    np.testing.assert_allclose(widths, [[30, 99], [69, 0], [1, 1]])
    starts = [[bar.get_x() for bar in group] for group in axes.containers]
    np.testing.assert_allclose(starts, [[0, 0], [30, 99], [99, 99]])
    assert texts_of(axes) == ["30%", "99%", "69%", "", "", ""]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == [
        "word embeddings",
        "attention",
        REST,
    ]


@pytest.mark.parametrize("measure", [anatomy.count, lambda config: anatomy.flops(config, 64)])
def test_every_large_part_of_the_known_models_has_a_look_of_its_own(measure):
    rows = anatomy.compare(anatomy.well_known(), measure)
    bars = merge_small(rows)
    assert all(amounts.keys() <= PARTS.keys() for amounts in bars.values())
    assert len({colour for colour, _ in PARTS.values()}) == len(PARTS) - 1  # attention, its maps
    assert png(parts_figure(rows, per=1e6, unit="M", title="")).startswith(b"\x89PNG")


def test_guesses_stand_below_their_text_and_beside_their_step():
    seen = {
        0: [[[("the", 0.1), ("a", 0.05)]], [[("##x", 0.2)], [("y", 0.9)]]],
        40: [[[("shape", 0.8), ("size", 0.1)]], [[("copy", 0.3)], [("z", 0.9)]]],
    }
    axes, bar = guesses_figure(seen, ["The [MASK] is $2.", "Make [MASK], [MASK]."]).axes
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert places == {"the": (0, 0), "##x": (1, 0), "shape": (0, 1), "copy": (1, 1)}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "40"]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "The ____ is $2.",
        "Make ____, ____.",
    ]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.1, 0.2], [0.8, 0.3]])
    assert bar.get_ylabel() == "probability"


def test_layers_show_each_probe_with_its_interval_and_how_alike_they_are():
    probes = {
        "topic?": [
            {"layer": 0, "accuracy": 0.3, "accuracy_low": 0.2, "accuracy_high": 0.35},
            {"layer": 1, "accuracy": 0.5, "accuracy_low": 0.45, "accuracy_high": 0.6},
        ],
        "order?": [
            {"layer": 0, "accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6},
            {"layer": 1, "accuracy": 0.9, "accuracy_low": 0.9, "accuracy_high": 0.9},
        ],
    }
    alike = np.array([[1.0, 0.7], [0.7, 1.0]])
    left, right, _ = layers_figure(probes, alike, chance=(0.125, 0.5)).axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["topic?", "order?"]
    drawn = [container.lines for container in left.containers]
    np.testing.assert_allclose([line.get_ydata() for line, *_ in drawn], [[30, 50], [50, 90]])
    ends = [[segment[:, 1] for segment in bars[0].get_segments()] for *_, bars in drawn]
    np.testing.assert_allclose(ends, [[[20, 35], [45, 60]], [[40, 60], [90, 90]]])
    dotted = [line.get_ydata()[0] for line in left.lines if line.get_linestyle() == ":"]
    np.testing.assert_allclose(dotted, [12.5, 50])
    assert texts_of(right) == ["1.0", "0.7", "0.7", "1.0"]
    np.testing.assert_allclose(right.images[0].get_array(), alike)
