"""Figures carry alt text and are plain PNGs."""

import base64
import io

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from course_utils.classroom import plots
from course_utils.errors import CourseError


def bars():
    fig, axes = plt.subplots()
    axes.bar(["teacher", "student"], [6, 3])
    return fig


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
        plots.show(bars(), alt=alt)
    assert displayed == []


def test_outside_of_a_notebook_the_words_are_printed(capsys):
    plots.show(bars(), alt="two bars")
    assert capsys.readouterr().out == "two bars\n"


def test_use_style_changes_the_figures_that_follow():
    with matplotlib.rc_context():
        plots.use_style()
        assert plt.rcParams["axes.prop_cycle"].by_key()["color"][0] == plots.COLOURS["blue"]
        assert plt.rcParams["font.family"] == ["DejaVu Sans"]


def test_the_same_figure_gives_the_same_bytes():
    first, second = bars(), bars()
    assert plots.png(first) == plots.png(second)
    plt.close("all")


def test_a_png_is_small_and_its_colours_are_those_of_the_figure():
    with matplotlib.rc_context(plots.STYLE):
        figure = bars()
        content, plain = plots.png(figure), io.BytesIO()
        figure.savefig(plain, dpi=2 * plots.STYLE["figure.dpi"])
        plt.close(figure)
    assert len(content) < 0.6 * len(plain.getvalue())
    small, large = (
        np.asarray(Image.open(file).convert("RGB"), int) for file in (io.BytesIO(content), plain)
    )
    assert small.shape == large.shape
    assert np.abs(small - large).max() < 40
    assert np.abs(small - large).mean() < 1
