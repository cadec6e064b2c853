"""Figures carry alt text, are plain PNGs, and the Pareto figure shows what its rows say."""

import base64
from itertools import pairwise

import matplotlib
import matplotlib.pyplot as plt
import pytest

from course_utils.classroom import plots
from course_utils.errors import CourseError


def row(name, size_mb, accuracy, latency=3.0, half=0.02):
    return {
        "name": name,
        "size_mb": size_mb,
        "accuracy": accuracy,
        "accuracy_low": accuracy - half,
        "accuracy_high": accuracy + half,
        "latency_ms_p50": latency,
    }


ROWS = [
    row("teacher", 91.0, 0.708, 11.234),
    row("student", 69.6, 0.704, 5.9),
    row("student, hard labels", 69.7, 0.696),
    row("student, int8", 17.9, 0.701, 1.8),
]


def test_show_sends_a_png_with_its_alt_text_and_closes_the_figure(displayed):
    fig = plt.figure()
    assert plots.show(fig, alt='Loss < 1 & "falling"') is None
    image, words = displayed
    assert base64.b64decode(image["data"]["image/png"]).startswith(b"\x89PNG")
    assert image["data"]["text/plain"] == 'Loss < 1 & "falling"'
    assert image["metadata"]["image/png"]["alt"] == 'Loss < 1 & "falling"'
    assert "Loss &lt; 1 &amp; &quot;falling&quot;</details>" in words["data"]["text/html"]
    assert not plt.fignum_exists(fig.number)


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_a_figure_without_words_is_refused(alt, displayed):
    with pytest.raises(CourseError, match="without alternative text"):
        plots.show(plots.pareto(ROWS), alt=alt)
    assert displayed == []


def test_outside_of_a_notebook_the_words_are_printed(capsys):
    plots.show(plots.pareto(ROWS), alt="four models")
    assert capsys.readouterr().out == "four models\n"


def test_use_style_changes_the_figures_that_follow():
    with matplotlib.rc_context():
        plots.use_style()
        assert plt.rcParams["axes.prop_cycle"].by_key()["color"][0] == plots.COLOURS["blue"]
        assert plt.rcParams["font.family"] == ["DejaVu Sans"]


def test_pareto_shows_every_row_where_its_numbers_are():
    fig = plots.pareto(ROWS)
    [axes], [legend] = fig.axes, fig.legends
    assert axes.get_xscale() == "log"
    assert "MB" in axes.get_xlabel()
    assert [text.get_text() for text in legend.get_texts()] == [
        "teacher · 11.2 ms",
        "student · 5.9 ms",
        "student, hard labels · 3 ms",
        "student, int8 · 1.8 ms",
    ]
    bars = axes.containers
    assert [tuple(bar.lines[0].get_xydata()[0]) for bar in bars] == [
        (line["size_mb"], line["accuracy"]) for line in ROWS
    ]
    ends = bars[0].lines[2][0].get_segments()[0][:, 1]
    assert ends == pytest.approx([0.688, 0.728])
    looks = [(bar.lines[0].get_color(), bar.lines[0].get_marker()) for bar in bars]
    assert len(set(looks)) == len(ROWS)


def test_pareto_joins_the_models_that_no_other_beats():
    front = plots.pareto(ROWS).axes[0].lines[0].get_xydata().tolist()
    assert front == [[17.9, 0.701], [69.6, 0.704], [91.0, 0.708]]


def test_models_of_one_size_stand_apart_and_all_are_inside():
    fig = plots.pareto([row(f"model {k}", 70.0, 0.7) for k in range(4)])
    fig.draw_without_rendering()
    axes = fig.axes[0]
    frame = axes.get_window_extent()
    points = [bar.lines[0] for bar in axes.containers]
    places = [line.get_transform().transform(line.get_xydata())[0] for line in points]
    assert all(frame.contains(*place) for place in places)
    across = sorted(place[0] for place in places)
    assert min(b - a for a, b in pairwise(across)) > 8


@pytest.mark.parametrize("count", [1, 5, 14])
def test_the_legend_and_the_title_lie_inside_the_figure(count):
    fig = plots.pareto([row(f"a model with a long name {k}", 10.0 + k, 0.7) for k in range(count)])
    fig.draw_without_rendering()
    for part in (fig.legends[0], fig._suptitle):
        box = part.get_window_extent()
        assert fig.bbox.x0 <= box.x0
        assert box.x1 <= fig.bbox.x1
        assert fig.bbox.y0 <= box.y0
        assert box.y1 <= fig.bbox.y1


def test_the_same_figure_gives_the_same_bytes():
    assert plots.png(plots.pareto(ROWS)) == plots.png(plots.pareto(ROWS))
