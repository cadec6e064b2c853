"""Charts hold the lines they are given, each in its look."""

import pytest

from course_utils.classroom.lines import LOOKS, Panel, lines_figure
from course_utils.classroom.plots import COLOURS

TIME = Panel(
    [64, 128, 256], {"pairs": [1, 4, 16], "rest": [3, 6, 12]}, "tokens", "ms", "time", "xy"
)
LONG = Panel(range(50), {"loss": range(50)}, ylim=(0, None))


def test_every_panel_holds_its_lines_labels_and_scales():
    figure = lines_figure("What does it cost?", TIME, LONG)
    left, right = figure.axes
    assert figure.get_suptitle() == "What does it cost?"
    assert [list(line.get_ydata()) for line in left.lines] == [[1, 4, 16], [3, 6, 12]]
    assert (left.get_xlabel(), left.get_ylabel()) == ("tokens", "ms")
    assert left.get_title(loc="left") == "time"
    assert (left.get_xscale(), left.get_yscale()) == ("log", "log")
    assert (right.get_xscale(), right.get_yscale()) == ("linear", "linear")
    assert right.get_ylim()[0] == 0


def test_lines_differ_in_more_than_colour_and_few_points_are_marked():
    left, right = lines_figure("?", TIME, LONG).axes
    for line, (colour, dash, marker) in zip(left.lines, LOOKS, strict=False):
        assert (line.get_color(), line.get_linestyle()) == (COLOURS[colour], dash)
        assert line.get_marker() == marker
    assert right.lines[0].get_marker() == "None"
    assert [label.get_text() for label in left.get_xticklabels()] == ["64", "128", "256"]
    for part in zip(*LOOKS, strict=True):
        assert len(set(part)) == len(LOOKS)


@pytest.mark.parametrize("which", [0, 1])
def test_one_panel_has_the_legend(which):
    axes = lines_figure("?", TIME, LONG, legend=which).axes
    assert axes[1 - which].get_legend() is None
    shown = [text.get_text() for text in axes[which].get_legend().get_texts()]
    assert shown == list((TIME, LONG)[which].lines)
