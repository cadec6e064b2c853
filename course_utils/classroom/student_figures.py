"""Figures of notebook 04: which layers a student keeps, what that costs, what training repairs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from course_utils.classroom.lines import LOOKS
from course_utils.classroom.plots import COLOURS, STYLE

WHITE_TO_BLUE = LinearSegmentedColormap.from_list("white to blue", ["white", COLOURS["blue"]])
DROPPED = "#D9D9D9"
HATCHES = ("", "..", "//")
# 97.5 % quantiles of Student's t, for 2 seeds, 3 seeds and so on up to 10.
T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)

Layers = tuple[int, ...]
Interval = tuple[float, float, float]  # what was measured, and where its interval begins and ends
Guess = tuple[str, float]


def maps_figure(n_layers: int, maps: Mapping[str, Layers]) -> Figure:
    """A figure with a row per map: the teacher's layers as boxes, those that are kept filled.

    In a filled box stands the number that the layer has in the student.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 1.3 + 0.55 * len(maps)))
        axes = fig.add_subplot(xlabel="layer of the teacher (in a box: layer of the student)")
        for row, layers in enumerate(maps.values()):
            _boxes(axes, row, n_layers, layers, numbered=True)
        _only_boxes(axes, n_layers, len(maps))
        axes.set_yticks(range(len(maps)), maps)
        axes.set_title("Which layers does a student keep?", loc="left")
    return fig


def choices_figure(
    n_layers: int, measured: Mapping[Layers, Interval], named: Mapping[Layers, str]
) -> Figure:
    """A figure of every choice of layers, best first: its boxes, and its agreement with interval.

    `measured` holds shares from 0 to 1; a choice in `named` stands out and has its name beside it.
    """
    ordered = sorted(measured, key=lambda layers: -measured[layers][0])
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 1.2 + 0.22 * len(ordered)))
        left, right = fig.subplots(1, 2, sharey=True, width_ratios=(1, 2.6))
        for row, layers in enumerate(ordered):
            colour = COLOURS["vermillion" if layers in named else "blue"]
            _boxes(left, row, n_layers, layers, colour=colour)
            share, low, high = (100 * number for number in measured[layers])
            error = [[share - low], [high - share]]
            right.errorbar(share, row, xerr=error, fmt="o", color=colour, capsize=3, markersize=6)
            right.annotate(
                named.get(layers, ""), (high, row), (6, 0), textcoords="offset points", va="center"
            )
        _only_boxes(left, n_layers, len(ordered))
        left.set_yticks([])
        left.set_xlabel("layers that are kept")
        right.set(xlabel="same class as the teacher, % of texts", xlim=(0, 100))
        fig.suptitle("How much of its teacher is a student before any training?", x=0.01, ha="left")
    return fig


def over_seeds(measured: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean over the first axis, the seeds, and half of its 95 % interval (Student's t).

    There are 2 to 10 seeds.
    """
    n = len(measured)
    half = T_QUANTILES[n - 2] * measured.std(axis=0, ddof=1) / np.sqrt(n)
    return measured.mean(axis=0), half


def repair_figure(steps: Sequence[int], measured: Mapping[str, np.ndarray]) -> Figure:
    """A figure of agreement by training step, for each choice, beside all seeds at the last step.

    `measured` holds shares (seeds, steps) by the name of the choice; there are looks for four. Bars
    are 95 % intervals over the seeds.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.9))
        left, right = fig.subplots(1, 2, width_ratios=(1.5, 1))
        places = np.arange(len(steps))
        for k, ((name, shares), look) in enumerate(zip(measured.items(), LOOKS, strict=False)):
            colour, dash, marker = COLOURS[look[0]], *look[1:]
            mean, half = over_seeds(100 * shares)
            bars = {"color": colour, "capsize": 4, "markersize": 6}
            line = {"linestyle": dash, "marker": marker, "label": name}
            left.errorbar(places + 0.05 * (k - 1.5), mean, half, **bars, **line)
            right.plot([k] * len(shares), 100 * shares[:, -1], "o", color=colour, alpha=0.4)
            right.errorbar(k + 0.25, mean[-1], half[-1], **bars, marker=marker)
        left.set_xticks(places, steps)
        left.set(xlabel="training step", ylabel="same class as the teacher, %", ylim=(0, 100))
        left.legend(loc="lower right", fontsize=9)
        right.set_xticks(range(len(measured)), [textwrap.fill(n, 8) for n in measured], fontsize=9)
        right.set_title(f"after {steps[-1]} steps, seed by seed", fontsize=11)
        fig.suptitle("Does it matter which layers it started from?", x=0.01, ha="left")
    return fig


def savings_figure(measured: Mapping[str, float], paper: Mapping[str, float]) -> Figure:
    """A figure of what is left of the teacher, in percent: one bar per measure.

    Both hold shares from 0 to 1 by the name of the measure; a diamond marks what the paper says.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 1.4 + 0.5 * len(measured)))
        axes = fig.add_subplot(xlabel="of the teacher, %", xlim=(0, 100))
        shares = [100 * share for share in measured.values()]
        bars = axes.barh(list(measured), shares, color=COLOURS["blue"], height=0.55, label="here")
        axes.bar_label(bars, fmt="%.0f", label_type="center", color="white")
        axes.axvline(50, color="black", linestyle=":", label="half")
        marks = [(100 * paper[name], k) for k, name in enumerate(measured) if name in paper]
        axes.plot(
            *zip(*marks, strict=True),
            "D",
            color=COLOURS["orange"],
            markeredgecolor="black",
            label="the paper",
        )
        axes.invert_yaxis()
        axes.grid(False)
        axes.set_title("Half the layers: what is left of the teacher?")
        fig.legend(loc="outside lower center", ncols=3, fontsize=10)
    return fig


def widths_figure(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """A figure with one bar per model, in millions of parameters, put together from its parts.

    `counts` holds the parameters by model and part, the parts in one order; three parts at most.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 1.4 + 0.55 * len(counts)))
        axes = fig.add_subplot(xlabel="parameters, millions")
        left = np.zeros(len(counts))
        for k, part in enumerate(next(iter(counts.values()))):
            millions = np.array([count[part] / 1e6 for count in counts.values()])
            colour = COLOURS[("blue", "green", "orange")[k]]
            look = {"color": colour, "hatch": HATCHES[k], "edgecolor": "white", "label": part}
            axes.barh(list(counts), millions, left=left, **look)
            left += millions
        for k, total in enumerate(left):
            axes.annotate(
                f"{total:.1f}", (total, k), (5, 0), textcoords="offset points", va="center"
            )
        axes.set_xlim(0, 1.1 * left.max())
        axes.invert_yaxis()
        axes.grid(False)
        axes.set_title("What do fewer layers save, and what does less width?")
        fig.legend(loc="outside lower center", ncols=3, fontsize=10)
    return fig


def likeness_figure(alike: Mapping[str, np.ndarray]) -> Figure:
    """A figure with a map for each moment: how alike layers of student and teacher are.

    A map is (student's layers, teacher's layers), both with the embeddings as layer 0.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 2.9))
        panels = fig.subplots(1, len(alike), sharey=True, squeeze=False)[0]
        for axes, (moment, matrix) in zip(panels, alike.items(), strict=True):
            image = axes.imshow(matrix, cmap=WHITE_TO_BLUE, vmin=0, vmax=1, origin="lower")
            for (row, column), value in np.ndenumerate(matrix):
                look = {"color": "white" if value > 0.6 else "black", "fontsize": 9}
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", **look)
            axes.set(xticks=range(matrix.shape[1]), yticks=range(matrix.shape[0]))
            axes.set(xlabel="layer of the teacher (0: embeddings)")
            axes.set_title(moment, fontsize=11)
            axes.grid(False)
        panels[0].set_ylabel("layer of the student")
        fig.colorbar(image, ax=list(panels), label="CKA (1: the same)", shrink=0.7)
        fig.suptitle("Which of its teacher's layers does it resemble?", x=0.01, ha="left")
    return fig


def side_by_side(guesses: Mapping[str, Sequence[Guess]], texts: Sequence[str]) -> Figure:
    """A figure of the first guess for the gap of each text: a row per text, a column per model."""
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 0.9 + 0.46 * len(texts)))
        axes = fig.add_subplot()
        probs = np.array([[prob for _, prob in column] for column in guesses.values()]).T
        image = axes.imshow(probs, cmap=WHITE_TO_BLUE, vmin=0, vmax=1, aspect="auto")
        for column, words in enumerate(guesses.values()):
            for row, (word, prob) in enumerate(words):
                look = {"color": "white" if prob > 0.6 else "black", "parse_math": False}
                axes.text(column, row, word, ha="center", va="center", **look)
        heads = [textwrap.fill(text.replace("[MASK]", "____"), 44) for text in texts]
        axes.set_yticks(range(len(texts)), heads, fontsize=9, parse_math=False)
        axes.set_xticks(range(len(guesses)), guesses)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.grid(False)
        fig.colorbar(image, ax=axes, label="probability")
        fig.suptitle("What does each of them guess for the gap?", x=0.01, ha="left", fontsize=13)
    return fig


def _boxes(
    axes: Axes,
    row: int,
    n_layers: int,
    layers: Layers,
    *,
    colour: str = COLOURS["blue"],
    numbered: bool = False,
) -> None:
    """Nothing; draws a row of boxes, one per layer of the teacher, those in `layers` filled."""
    for layer in range(n_layers):
        kept = layer in layers
        look = {"facecolor": colour if kept else "white", "edgecolor": colour if kept else DROPPED}
        axes.add_patch(Rectangle((layer - 0.4, row - 0.36), 0.8, 0.72, linewidth=1.2, **look))
        if kept and numbered:
            look = {"ha": "center", "va": "center", "color": "white"}
            axes.text(layer, row, str(layers.index(layer)), **look)


def _only_boxes(axes: Axes, n_layers: int, n_rows: int) -> None:
    axes.set(xlim=(-0.6, n_layers - 0.4), ylim=(n_rows - 0.4, -0.6))
    axes.set_xticks(range(n_layers))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(False)
