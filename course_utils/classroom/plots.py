"""Figures for everyone: one style, colours that colour-blind readers tell apart, alt text."""

from __future__ import annotations

import base64
import html
import io
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from course_utils.classroom.display import put
from course_utils.errors import CourseError

# Okabe & Ito, "Color Universal Design" (2008); yellow is last, it is weak on white.
COLOURS = {
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "black": "#000000",
    "yellow": "#F0E442",
}
STYLE: dict[str, Any] = {
    "figure.figsize": (7.2, 4.4),
    "figure.dpi": 96,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "axes.prop_cycle": plt.cycler(color=list(COLOURS.values())),
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E0E0E0",
    "font.size": 11,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters everywhere
    "lines.linewidth": 2,
    "lines.markersize": 8,
    "legend.frameon": False,
}

# JupyterLab, Colab and nbconvert's default page show a PNG without the alternative text that its
# metadata holds. An <img> in HTML could have it, but would be compared byte by byte in tests. So
# the HTML below a figure hands its own words to the nearest image before it.
GIVE_ALT = """<script>
for (let me = document.currentScript, node = me; node; node = node.parentElement) {
  const before = node.previousElementSibling;
  const image = before && [before, ...before.querySelectorAll("img")].pop();
  if (image && image.tagName === "IMG") {
    image.alt = me.previousElementSibling.lastChild.textContent;
    break;
  }
}
</script>"""


def use_style() -> None:
    """Nothing; from now on every figure of this process has the course's style."""
    matplotlib.rcParams.update(STYLE)


def png(fig: Figure) -> bytes:
    """The figure as PNG at twice the screen's resolution; the same bytes for the same figure.

    It has a palette of 256 colours: a third of the bytes, and a notebook may have one megabyte.
    """
    drawn, small = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, format="png", dpi=2 * STYLE["figure.dpi"])
    image = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(small, format="png", optimize=True)
    return small.getvalue()


def show(fig: Figure, *, alt: str) -> None:
    """Nothing; displays the figure under the cell, `alt` beside it, and closes it.

    `alt` says what the figure shows in a sentence or two: in the output's metadata, as its plain
    text, folded below the figure, and in the page as the image's own alternative text. It is
    compared when the notebooks are tested: numbers that differ from run to run do not belong in it.
    Raises `CourseError` when `alt` is empty.
    """
    if not alt.strip():
        raise CourseError(
            "A figure without alternative text.",
            do='Say what it shows: show(fig, alt="Accuracy against size: …").',
        )
    width = round(fig.get_figwidth() * STYLE["figure.dpi"])
    put(
        {"image/png": base64.b64encode(png(fig)).decode(), "text/plain": alt},
        metadata={"image/png": {"alt": alt, "width": width}},
    )
    words = f"<details><summary>This figure in words</summary>{html.escape(alt)}</details>"
    put({"text/html": words + GIVE_ALT})
    plt.close(fig)
