"""Figures of notebook 06: rows with intervals, few labels, a grid, trials, luck, calibration."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from course_utils.classroom.lines import LOOKS
from course_utils.classroom.plots import COLOURS, STYLE
from course_utils.classroom.student_figures import WHITE_TO_BLUE
from course_utils.measure.accuracy import over_seeds_and_texts
from course_utils.measure.calibration import Calibration

STATES = {"complete": ("blue", "o"), "pruned": ("vermillion", "x")}

Group = tuple[str, float, float]  # a name, and the shares of teacher and student
Row = Mapping[str, object]


def rows_figure(
    question: str,
    panels: Mapping[str, Mapping[str, np.ndarray]],
    *,
    line: float | None = None,
) -> Figure:
    """A figure with a panel for each measure: a row per name, all its seeds, mean and interval.

    A row's array is (seeds, texts); a dot is the mean of a seed, the bar the 95 % interval of the
    mean over both. `line` is drawn upright, as a 0 for differences.
    """
    names = list(next(iter(panels.values())))
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 1.5 + 0.42 * len(names)))
        charts = fig.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (measure, rows) in zip(charts, panels.items(), strict=True):
            for k, name in enumerate(names):
                seeds = np.mean(rows[name], axis=1)
                mean, half = over_seeds_and_texts(rows[name])
                axes.plot(seeds, [k + 0.2] * len(seeds), ".", color=COLOURS["sky"])
                axes.errorbar(
                    mean, k, xerr=half, fmt="o", color=COLOURS["blue"], capsize=4, markersize=7
                )
            if line is not None:
                axes.axvline(line, color="black", linestyle=":")
            axes.set_xlabel(measure)
        charts[0].set_yticks(range(len(names)), [textwrap.fill(name, 26) for name in names])
        charts[0].set_ylim(len(names) - 0.4, -0.6)
        fig.suptitle(question, x=0.01, ha="left")
    return fig


def few_labels_figure(
    sizes: Sequence[int],
    measured: Mapping[str, Sequence[np.ndarray]],
    teachers: Sequence[float],
) -> Figure:
    """A figure of accuracy over the number of labels: a line per student, and the teachers' own.

    `measured` holds for each student, three of them at most, percent (seeds, texts) at every size;
    bars are 95 % intervals over both.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 4.2))
        axes = fig.add_subplot(xlabel="labelled texts", ylabel="right on unread texts, %")
        axes.set_xscale("log")
        for k, ((name, percent), look) in enumerate(zip(measured.items(), LOOKS, strict=False)):
            colour, dash, marker = COLOURS[look[0]], *look[1:]
            mean, half = zip(*map(over_seeds_and_texts, percent), strict=True)
            places = np.asarray(sizes) * 1.03 ** (k - 1)  # side by side, not on one another
            axes.errorbar(
                places,
                mean,
                half,
                color=colour,
                linestyle=dash,
                marker=marker,
                capsize=4,
                label=name,
            )
        colour, dash, marker = LOOKS[3]
        axes.plot(
            sizes, teachers, color=COLOURS[colour], linestyle=dash, marker=marker, label="teacher"
        )
        axes.set_xticks(sizes, sizes)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.legend()
        axes.set_title("Where does distillation pay most?")
    return fig


def grid_figure(
    temperatures: Sequence[float], alphas: Sequence[float], percent: np.ndarray, half: float
) -> Figure:
    """A heat map of percent (temperatures, alphas); `half` of an interval is told beside it."""
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.6))
        axes = fig.add_subplot(xlabel="alpha, the weight of the labels", ylabel="temperature T")
        image = axes.imshow(percent, cmap=WHITE_TO_BLUE, aspect="auto", origin="lower")
        middle = (np.min(percent) + np.max(percent)) / 2
        best = np.unravel_index(np.argmax(percent), np.shape(percent))
        for (row, column), value in np.ndenumerate(percent):
            look = {"color": "white" if value > middle else "black"}
            if (row, column) == best:
                look["fontweight"] = "bold"
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", **look)
        axes.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
        axes.set_yticks(range(len(temperatures)), [f"{t:g}" for t in temperatures])
        axes.grid(False)
        fig.colorbar(image, ax=axes, label="right on dev, %")
        axes.set_title(f"Which T, which alpha? (Each number ± {half:.1f})")
    return fig


def trials_figure(trials: Sequence[Row]) -> Figure:
    """A figure of a search: accuracy on dev by learning rate, a mark per trial, its layers beside.

    A trial has `params` (`learning_rate`, `layers`), `dev_accuracy` and `state`.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.8))
        axes = fig.add_subplot(xlabel="learning rate", ylabel="right on dev, %")
        axes.set_xscale("log")
        for state, (colour, marker) in STATES.items():
            here = [t for t in trials if t["state"] == state and t["dev_accuracy"] is not None]
            points = [(t["params"]["learning_rate"], 100 * t["dev_accuracy"]) for t in here]
            x, y = zip(*points, strict=True) if points else ((), ())
            axes.plot(x, y, linestyle="", marker=marker, color=COLOURS[colour], label=state)
            for trial, point in zip(here, points, strict=True):
                axes.annotate(
                    str(trial["params"]["layers"]), point, (6, 3), textcoords="offset points"
                )
        axes.legend(title="beside a mark: layers", loc="lower center")
        axes.set_title("What did the search try?")
    return fig


def luck_figure(searched: np.ndarray, fresh: np.ndarray) -> Figure:
    """A figure with a point per candidate: its lead where it was searched, and on fresh texts.

    A lead, (candidates,), is in points above the candidates' average. The best of the search
    stands out, with its fall.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 4))
        axes = fig.add_subplot(
            xlabel="lead on the small test set, points", ylabel="lead on fresh texts, points"
        )
        best = int(np.argmax(searched))
        ends = [min(searched.min(), fresh.min()) - 1, searched.max() + 1]
        axes.plot(ends, ends, color="black", linestyle=":", label="as good on both")
        axes.plot(searched, fresh, "o", color=COLOURS["sky"], alpha=0.7, label="candidates")
        axes.plot(
            searched[best],
            fresh[best],
            "D",
            color=COLOURS["vermillion"],
            label="the best of the search",
        )
        axes.annotate(
            "",
            (searched[best], fresh[best]),
            (searched[best], searched[best]),
            arrowprops={"arrowstyle": "->", "color": COLOURS["vermillion"]},
        )
        axes.legend(loc="upper left")
        axes.set_title("What is the best of forty worth on other texts?")
    return fig


def reliability_figure(calibrations: Mapping[str, Calibration]) -> Figure:
    """A figure with a panel per model: how often it is right, by how sure it is."""
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.4))
        panels = fig.subplots(1, len(calibrations), sharey=True, squeeze=False)[0]
        most = max(one.n for found in calibrations.values() for one in found.bins)
        for axes, (name, found) in zip(panels, calibrations.items(), strict=True):
            axes.plot([0, 1], [0, 1], color="black", linestyle=":", label="as sure as right")
            axes.plot(
                [one.confidence for one in found.bins],
                [one.accuracy for one in found.bins],
                color=COLOURS["blue"],
            )
            axes.scatter(
                [one.confidence for one in found.bins],
                [one.accuracy for one in found.bins],
                [15 + 150 * one.n / most for one in found.bins],
                color=COLOURS["blue"],
            )
            axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="how sure", aspect="equal")
            ends = f"{found.ece_low:.2f} to {found.ece_high:.2f}"
            axes.set_title(f"{name}\nECE {found.ece:.2f} ({ends})", fontsize=10)
        panels[0].set_ylabel("how often right")
        fig.suptitle("Are they right as often as they say?", x=0.01, ha="left")
    return fig


def groups_figure(panels: Mapping[str, Sequence[Group]]) -> Figure:
    """A figure with a panel per way to group the texts: teacher and student in each group.

    A group is (name, the teacher's share, the student's), shares from 0 to 1.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.6))
        charts = fig.subplots(1, len(panels), sharex=True, squeeze=False)[0]
        for axes, (title, groups) in zip(charts, panels.items(), strict=True):
            places = range(len(groups))
            names, teacher, student = zip(*groups, strict=True)
            axes.hlines(places, 100 * np.array(teacher), 100 * np.array(student), color="#999999")
            for label, shares, (colour, _, marker) in (
                ("teacher", teacher, LOOKS[3]),
                ("student", student, LOOKS[0]),
            ):
                look = {"color": COLOURS[colour], "marker": marker, "linestyle": ""}
                axes.plot(100 * np.array(shares), places, label=label, **look)
            axes.set_yticks(places, names)
            axes.set_ylim(len(groups) - 0.5, -0.5)
            axes.set_xlabel("right, %")
            axes.set_title(title, fontsize=11)
        fig.legend(*charts[0].get_legend_handles_labels(), loc="upper right", ncols=2)
        fig.suptitle("Where does the student lose, and where not?", x=0.01, ha="left")
    return fig
