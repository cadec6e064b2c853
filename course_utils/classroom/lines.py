"""Line charts side by side that answer one question, in the course's colours and dashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from course_utils.classroom.plots import COLOURS, STYLE

LOOKS = (("vermillion", "-", "o"), ("blue", "--", "s"), ("green", "-.", "D"), ("black", ":", "^"))
MOST_MARKED = 12  # up to this many points, each has a marker and a tick


@dataclass(frozen=True)
class Panel:
    """One chart: lines by name, over the same x; `log` names the logarithmic axes, as "xy"."""

    x: Sequence[float]
    lines: Mapping[str, Sequence[float]]
    xlabel: str = ""
    ylabel: str = ""
    title: str = ""
    log: str = ""
    ylim: tuple[float | None, float | None] = (None, None)


def lines_figure(question: str, *panels: Panel, legend: int = 0) -> Figure:
    """A figure with a panel per chart, titled with the question; panel `legend` has the legend.

    The k-th line of each panel looks the same: give lines that mean the same the same place. There
    are looks for four.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.8 if len(panels) < 3 else 3.4))
        for axes, panel in zip(fig.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw(axes, panel)
            if panel is panels[legend]:
                axes.legend(fontsize=10 if len(panels) < 3 else 9)
        fig.suptitle(question, x=0.01, ha="left", fontsize=13)
    return fig


def _draw(axes: Axes, panel: Panel) -> None:
    few = len(panel.x) <= MOST_MARKED
    for (name, y), (colour, dash, marker) in zip(panel.lines.items(), LOOKS, strict=False):
        look = {"color": COLOURS[colour], "linestyle": dash, "marker": marker if few else None}
        axes.plot(panel.x, y, label=name, **look)
    axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel)
    axes.set_title(panel.title, fontsize=11)
    if "x" in panel.log:
        axes.set_xscale("log")
    if "y" in panel.log:
        axes.set_yscale("log")
    if few:
        axes.set_xticks(panel.x, [f"{x:g}" for x in panel.x])
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(*panel.ylim)
