"""Figures of notebook 12: the front of all pipelines, two orders of one, two runs of one lab."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullLocator

from course_utils.classroom.make_it_fit import Budget
from course_utils.classroom.plots import COLOURS, STYLE
from course_utils.errors import DataError
from course_utils.measure.report import Row

GREY = "#767676"
NAME = 26  # characters of a name in one line
LINE_PT, CHARACTER_PT = 13, 5.2  # about the height of a line of a name, and the width of a letter
RATIOS = {
    "size_ratio": "smaller, ×",
    "speedup_batch1": "faster, 1 text, ×",
    "speedup_batch32": "faster, 32 texts, ×",
    "retention": "accuracy kept, %",
}
_TWO = (("vermillion", "s"), ("blue", "o"))
_SMALL: dict[str, Any] = {"textcoords": "offset points", "fontsize": 9}
_PALE = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5}
_THREAD = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkB": 4, "relpos": (1, 0)}


def front(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other beats, smallest first: by size on disk and accuracy.

    Another row beats one if it is at least as good in both, and better in one of them.
    """

    def beats(one: Row, other: Row) -> bool:
        less, more = other["size_mb"] - one["size_mb"], one["accuracy"] - other["accuracy"]
        return less >= 0 and more >= 0 and (less > 0 or more > 0)

    kept = [row for row in rows if not any(beats(other, row) for other in rows)]
    return sorted(kept, key=lambda row: row["size_mb"])


def front_figure(
    rows: Sequence[Row],
    *,
    title: str,
    budget: Budget | None = None,
    reference: Sequence[Row] | None = None,
) -> Figure:
    """A figure of accuracy, with its 95 % interval, over size on disk: a point for every pipeline.

    Those on the front are filled, named and joined by steps; so is the teacher, the first row,
    named. Of a `budget` the megabytes and points are shaded, of `reference`, the rows of another
    run, the front is dotted.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8.6, 5.6))
        axes = fig.add_subplot(
            xlabel="size on disk, MB (logarithmic; smaller is to the left)",
            ylabel="right, %, with its 95 % interval",
        )
        best = front(rows)
        others = [row for row in rows if row not in best]
        _points(axes, others, "beaten by one on the front", GREY, mfc="white", elinewidth=0.8)
        _points(axes, best, "on the front", COLOURS["blue"], elinewidth=1.2)
        _steps(axes, best, color=COLOURS["blue"], linewidth=1.5)
        if reference:
            look = {"color": COLOURS["vermillion"], "linestyle": ":"}
            _steps(axes, front(reference), label="front of the reference run", **look)
        _log_axis(axes)
        _name(axes, best, [*rows, *(reference or ())])
        if rows[0] in others:
            below = rows[0]["size_mb"], 100 * rows[0]["accuracy_low"]
            axes.annotate(rows[0]["name"], below, (0, -4), ha="center", va="top", **_SMALL)
        if budget:
            _shade(axes, budget, 100 * rows[0]["accuracy"])
        fig.legend(loc="outside lower center", ncols=2, fontsize=10)
        fig.suptitle(title, x=0.01, ha="left", fontsize=13)
    return fig


def order_figure(pairs: Sequence[tuple[Row, Row]]) -> Figure:
    """A figure with a group for each pair, the same operations in two orders: both accuracies.

    Bars are 95 % intervals of each accuracy by itself; the difference is known better.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 1.6 + 0.75 * len(pairs)))
        axes = fig.add_subplot(xlabel="right, %, with its 95 % interval")
        names = []
        for group, pair in enumerate(pairs):
            for k, (row, (colour, marker)) in enumerate(zip(pair, _TWO, strict=True)):
                place = 2.6 * group + k
                look = {"fmt": marker, "color": COLOURS[colour], "capsize": 4, "elinewidth": 1.5}
                axes.errorbar(100 * row["accuracy"], place, xerr=_interval([row]), **look)
                names.append((place, row["name"]))
        axes.set_yticks(*zip(*names, strict=True))
        axes.set_ylim(names[-1][0] + 0.7, -0.7)
        axes.grid(axis="y", visible=False)
        fig.suptitle("Does the order of the operations matter?", x=0.01, ha="left", fontsize=13)
    return fig


def beside_figure(reference_rows: Sequence[Row], own_rows: Sequence[Row]) -> Figure:
    """A figure with a panel per ratio to the teacher: the reference run beside the learner's own.

    For the pipelines that both have, in the order of the learner's; the teacher is a dotted line.
    Raises `DataError` where they have none in common.
    """
    theirs = {row["name"]: row for row in reference_rows[1:]}
    names = [row["name"] for row in own_rows[1:] if row["name"] in theirs]
    if not names:
        raise DataError(
            "The two runs have no pipeline in common.",
            do="Run one of the reference's: it is the name of its row.",
        )
    own = {row["name"]: row for row in own_rows}
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8.6, 1.9 + 0.34 * len(names)))
        charts = fig.subplots(1, len(RATIOS), sharey=True)
        for axes, (key, label) in zip(charts, RATIOS.items(), strict=True):
            for (title, run), (colour, marker), aside in zip(
                (("reference run", theirs), ("your run", own)), _TWO, (-0.14, 0.14), strict=True
            ):
                values = [_ratio(run[name], key) for name in names]
                look = {"color": COLOURS[colour], "markersize": 6, "label": title}
                axes.plot(values, np.arange(len(names)) + aside, marker, **look)
            axes.set_xlabel(label, fontsize=10)
            axes.axvline(100 if key == "retention" else 1, color="black", linestyle=":", lw=1)
            if key != "retention":
                _log_axis(axes)
        charts[0].set_yticks(range(len(names)), names, fontsize=9)
        charts[0].set_ylim(len(names) - 0.5, -0.5)
        lines, titles = charts[0].get_legend_handles_labels()
        fig.legend(lines, titles, loc="outside lower center", ncols=2, fontsize=10)
        fig.suptitle("Does it come out the same on another machine?", x=0.01, ha="left")
    return fig


def _ratio(row: Row, key: str) -> float:
    value = np.nan if row[key] is None else row[key]
    return 100 * value if key == "retention" else value


def _interval(rows: Sequence[Row]) -> np.ndarray:
    """How far the intervals go below and above the accuracies, in points, (2, rows)."""
    ends = [
        (row["accuracy"] - row["accuracy_low"], row["accuracy_high"] - row["accuracy"])
        for row in rows
    ]
    return 100 * np.array(ends).T


def _places(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """The rows as points: megabytes, and percent right."""
    return [row["size_mb"] for row in rows], [100 * row["accuracy"] for row in rows]


def _points(axes: Axes, rows: Sequence[Row], label: str, colour: str, **look: Any) -> None:
    if rows:
        look = {"fmt": "o", "color": colour, "label": label, "capsize": 0, "markersize": 7} | look
        axes.errorbar(*_places(rows), yerr=_interval(rows), **look)


def _steps(axes: Axes, rows: Sequence[Row], **look: Any) -> None:
    """Nothing; draws the best accuracy to be had up to each size."""
    axes.step(*_places(rows), where="post", **look)


def _log_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())


def _shade(axes: Axes, budget: Budget, teacher: float) -> None:
    left, top, least = axes.get_xlim()[0], axes.get_ylim()[1], teacher - budget.points
    label = f"at most {budget.mb:g} MB and {budget.points:g} points lost"
    place = (left, least), budget.mb - left, top - least
    axes.add_patch(Rectangle(*place, color=COLOURS["yellow"], alpha=0.35, zorder=0, label=label))


def _name(axes: Axes, best: Sequence[Row], rows: Sequence[Row]) -> None:
    """Nothing; names the rows of a front, above and to the left of it, where no point can be.

    A name that would lie on the one before is moved up, with a line to its point. The limits of the
    axes are set so that there is room for all `rows`, and for the names.
    """
    width, height = 72 * 0.8 * axes.figure.get_size_inches()  # of the axes, points, about
    low = 100 * min(row["accuracy_low"] for row in rows)
    high = 100 * max(row["accuracy_high"] for row in rows)
    right = np.log(1.2 * max(row["size_mb"] for row in rows))
    left = np.log(min(row["size_mb"] for row in rows) / 1.3)
    line = 1.15 * max(high - low, 1) * LINE_PT / height  # in percent
    free = -np.inf
    for row in best:
        words, own = _wrapped(row["name"]), 100 * row["accuracy"]
        place = max(own, free)
        axes.annotate(
            "\n".join(words),
            (row["size_mb"], own),
            (-7, 3 + (place - own) / line * LINE_PT),
            ha="right",
            va="bottom",
            arrowprops=_THREAD,
            bbox=_PALE,
            **_SMALL,
        ).set_in_layout(False)
        free = place + len(words) * line
        taken = (10 + CHARACTER_PT * max(map(len, words))) / width  # of the axes, left of the point
        left = min(left, (np.log(row["size_mb"]) - taken * right) / (1 - taken))
    axes.set_xlim(*np.exp([left, right]))
    axes.set_ylim(low - line, max(high, free) + line)


def _wrapped(name: str) -> list[str]:
    """The name of a pipeline in lines; what belongs to one operation is kept together."""
    together = name.replace(" ", "\xa0").replace(",\xa0", ", ")
    return [line.replace("\xa0", " ") for line in wrap(together, NAME)]
