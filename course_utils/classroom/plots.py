"""Figures for everyone: one style, colours that colour-blind readers tell apart, alt text."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter
from matplotlib.transforms import ScaledTranslation

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
MARKERS = "osD^vPX*"  # a second way to tell series apart, for print in grey

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
    """The figure as PNG at twice the screen's resolution; the same bytes for the same figure."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=2 * STYLE["figure.dpi"], metadata={"Software": None})
    return buffer.getvalue()


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


def pareto(rows: Sequence[Mapping[str, Any]], *, title: str | None = None) -> Figure:
    """A figure of accuracy against size, one point per row, with its interval and its latency.

    Each row has `name`, `size_mb` (10^6 bytes), `accuracy`, `accuracy_low`, `accuracy_high` (shares
    from 0 to 1) and `latency_ms_p50`. The grey line joins the models that no other beats in both.
    Models of nearly the same size stand side by side, a few pixels apart, to be seen at all.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(9, max(4.2, 1 + 0.3 * len(rows))))
        title = title or "How much does each model weigh, and how often is it right?"
        fig.suptitle(title, x=0.01, ha="left", fontsize=STYLE["axes.titlesize"])
        axes = fig.add_subplot(
            xlabel="size on disk, MB (logarithmic; smaller is to the left)",
            ylabel="accuracy, with its interval",
            xscale="log",
        )
        front = sorted(
            (row["size_mb"], row["accuracy"])
            for row in rows
            if not any(_beats(other, row) for other in rows)
        )
        axes.plot(*zip(*front, strict=True), color="#B0B0B0", linewidth=1.5, zorder=1)
        points = []
        for k, (row, shift) in enumerate(zip(rows, _side_by_side(rows), strict=True)):
            accuracy = row["accuracy"]
            reach = [[accuracy - row["accuracy_low"]], [row["accuracy_high"] - accuracy]]
            bars = axes.errorbar(
                row["size_mb"],
                accuracy,
                yerr=np.maximum(reach, 0),
                fmt=MARKERS[k % len(MARKERS)],
                color=list(COLOURS.values())[k % 7],
                capsize=4,
                elinewidth=1.5,
                transform=axes.transData + ScaledTranslation(shift / 72, 0, fig.dpi_scale_trans),
            )
            points.append(bars[0])
        sizes = [row["size_mb"] for row in rows]
        axes.set_xlim(min(sizes) / 1.4, max(sizes) * 1.4)
        low, high = min(r["accuracy_low"] for r in rows), max(r["accuracy_high"] for r in rows)
        room = max(0.08 * (high - low), 0.005)
        axes.set_ylim(low - room, high + room)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        fig.legend(
            points,
            [f"{row['name']} · {row['latency_ms_p50']:.3g} ms" for row in rows],
            loc="outside right center",
            fontsize=9.5,
            labelspacing=0.9,
            title="model · time for one text",
            alignment="left",
        )
    return fig


def _beats(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether `one` is at least as small and as accurate as `other`, and better in one of them."""
    ours, theirs = (one["size_mb"], -one["accuracy"]), (other["size_mb"], -other["accuracy"])
    return ours != theirs and ours[0] <= theirs[0] and ours[1] <= theirs[1]


def _side_by_side(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Shifts in points that part the models whose sizes are within 4 % of each other."""
    shifts = []
    for k, row in enumerate(rows):
        near = [
            j
            for j, other in enumerate(rows)
            if abs(np.log(other["size_mb"] / row["size_mb"])) < 0.04
        ]
        shifts.append(9 * (near.index(k) - (len(near) - 1) / 2))
    return shifts
