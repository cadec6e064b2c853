"""Figures of notebook 09: what a rank costs and holds, and what a small vocabulary covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from course_utils.classroom.lines import LOOKS
from course_utils.classroom.live import Live, Picture, ipywidgets
from course_utils.classroom.plots import COLOURS, STYLE, png
from course_utils.compress.svd import break_even_rank
from course_utils.measure.accuracy import over_seeds_and_texts

PARTS = (("blue", ""), ("green", "//"), ("orange", ".."))


def break_even_figure(shapes: Mapping[str, tuple[int, int]]) -> Figure:
    """A figure of what two factors hold, in percent of the (m, n) weight's numbers, by their rank.

    Each shape, four at most, has a line, and a mark where it crosses 100 %.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 4))
        axes = fig.add_subplot(xlabel="rank, % of the full rank", ylabel="numbers, % of the weight")
        axes.axhline(100, color="black", linewidth=1)
        for (name, (m, n)), (colour, dash, marker) in zip(shapes.items(), LOOKS, strict=False):
            full, even = min(m, n), break_even_rank(m, n)
            ranks = np.array([0, full])
            look = {"color": COLOURS[colour], "linestyle": dash}
            percent = 100 * ranks * (m + n) / (m * n)
            axes.plot(100 * ranks / full, percent, label=f"{name}: {m} x {n}", **look)
            axes.plot(100 * even / full, 100, marker, color=COLOURS[colour])
            axes.annotate(
                f"rank {even:.0f}",
                (100 * even / full, 100),
                (-6, 6),
                textcoords="offset points",
                ha="right",
            )
        axes.set(xlim=(0, 100), ylim=(0, 210))
        axes.legend()
        axes.set_title("Up to which rank is anything saved?")
    return fig


def energy_figure(
    panels: Mapping[str, Mapping[str, Tensor]], shapes: Sequence[tuple[int, int]]
) -> Figure:
    """A figure with a panel per layer: the share of the energy that the first ranks hold.

    A panel maps names to singular values (K,), three at most; `shapes` are those of the layers'
    weights, whose break-even ranks are dotted lines.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.8))
        charts = fig.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, spectra), shape in zip(charts, panels.items(), shapes, strict=True):
            for (name, values), (colour, dash, _) in zip(spectra.items(), LOOKS, strict=False):
                held = 100 * _held(values)
                axes.plot(range(len(held)), held, color=COLOURS[colour], linestyle=dash, label=name)
            _break_even(axes, shape)
            axes.set(ylim=(0, 101), xlabel="rank")
            axes.set_title(title, fontsize=11)
        charts[0].set_ylabel("energy held, %")
        charts[-1].legend(loc="lower right", fontsize=9)
        fig.suptitle("How many directions does a layer need?", x=0.01, ha="left")
    return fig


def rank_figure(weight: Tensor, outputs: Tensor, shape: tuple[int, int], rank: int) -> Figure:
    """A figure of one layer at one rank: its singular values, and what the rank keeps and costs.

    `weight` and `outputs` are the singular values (K,) without and with the layer's inputs.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.4))
        left, right = fig.subplots(1, 2, width_ratios=(3, 2))
        for (name, values), (colour, dash, _) in zip(
            (("weight", weight), ("outputs", outputs)), LOOKS, strict=False
        ):
            relative = (values / values[0]).clamp_min(1e-6).cpu()
            left.plot(
                range(1, len(relative) + 1),
                relative,
                color=COLOURS[colour],
                linestyle=dash,
                label=name,
            )
        left.axvspan(0.5, rank + 0.5, color=COLOURS["sky"], alpha=0.3)
        _break_even(left, shape)
        left.set_yscale("log")
        left.set(xlabel="number, from the largest on", ylabel="singular value, of the largest")
        left.legend(fontsize=9)
        m, n = shape
        shares = {
            "numbers stored": 100 * rank * (m + n) / (m * n),
            "energy of the weight": 100 * float(_held(weight)[rank]),
            "energy of the outputs": 100 * float(_held(outputs)[rank]),
        }
        names = [f"{name}: {share:.0f} %" for name, share in shares.items()]
        right.barh(names, list(shares.values()), color=COLOURS["blue"], height=0.6)
        right.axvline(100, color="black", linewidth=1)
        right.set(xlim=(0, 200), xlabel="of the whole weight, %")
        right.invert_yaxis()
        right.grid(False)
        fig.suptitle(f"What does rank {rank} keep, and what does it cost?", x=0.01, ha="left")
    return fig


def rank_viewer(weight: Tensor, outputs: Tensor, shape: tuple[int, int], *, rank: int) -> None:
    """Nothing; shows `rank_figure` with a slider for the rank, which begins at `rank`."""
    picture = Picture()
    slider = ipywidgets.IntSlider(
        value=rank,
        min=1,
        max=min(shape),
        description="rank",
        continuous_update=False,
        layout=ipywidgets.Layout(width="60%"),
    )

    def draw(_: object = None) -> None:
        now = rank_figure(weight, outputs, shape, slider.value)
        kept = [label.get_text() for label in now.axes[1].get_yticklabels()]
        picture.show(png(now), alt=f"Rank {slider.value} keeps, of the whole: {', '.join(kept)}.")

    slider.observe(draw, names="value")
    draw()
    display(Live("A slider for the rank. It needs a running kernel.", [slider, picture]))


def sizes_figure(
    shares: Sequence[float],
    before: Mapping[str, Sequence[np.ndarray]],
    after: Mapping[str, Mapping[float, np.ndarray]],
    teacher: float,
) -> Figure:
    """A figure of percent right by the share of the encoder that is left, cut and then trained.

    `before` holds for each way an array (texts,) at every share, `after` (seeds, texts) at some,
    100 for a right text and 0 for a wrong one; bars are 95 % intervals, the line the teacher.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 4))
        left, right = fig.subplots(1, 2, sharex=True, sharey=True)
        places = 100 * np.asarray(shares)
        for k, (name, (colour, dash, marker)) in enumerate(zip(before, LOOKS, strict=False)):
            look = {"color": COLOURS[colour], "linestyle": dash, "marker": marker, "capsize": 4}
            aside = k - (len(before) - 1) / 2  # side by side, not on one another
            _bars(left, places + aside, before[name], look | {"label": name})
            at = 100 * np.array(list(after[name]))
            _bars(right, at + aside, list(after[name].values()), look)
        for axes, title in ((left, "as it is cut"), (right, "after training with the teacher")):
            axes.axhline(teacher, color="black", linestyle=":", label="teacher" * (axes is left))
            axes.set_xlabel("of the encoder's parameters, %")
            axes.set_title(title, fontsize=11)
        left.set(ylabel="right, %", xticks=places)
        left.invert_xaxis()
        fig.legend(loc="outside lower center", ncols=len(before) + 1, fontsize=10)
        fig.suptitle("How much can go, and by which way?", x=0.01, ha="left")
    return fig


def parts_figure(counts: Mapping[str, Mapping[str, int]], question: str) -> Figure:
    """A figure with a bar per model, in millions of parameters, put together from its parts.

    `counts` holds the parameters by model and part, three parts at most, in one order.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 1.5 + 0.5 * len(counts)))
        axes = fig.add_subplot(xlabel="parameters, millions")
        left = np.zeros(len(counts))
        names = list(next(iter(counts.values())))
        for name, (colour, hatch) in zip(names, PARTS, strict=False):
            millions = np.array([count[name] / 1e6 for count in counts.values()])
            look = {"color": COLOURS[colour], "hatch": hatch, "edgecolor": "white", "label": name}
            axes.barh(list(counts), millions, left=left, **look)
            left += millions
        for k, count in enumerate(counts.values()):
            share = count[names[0]] / sum(count.values())
            words = f"{left[k]:.1f}, {share:.0%} {names[0]}"
            axes.annotate(words, (left[k], k), (5, 0), textcoords="offset points", va="center")
        axes.set_xlim(0, 1.45 * left.max())
        axes.invert_yaxis()
        axes.grid(False)
        axes.set_title(question)
        fig.legend(loc="outside lower center", ncols=3, fontsize=10)
    return fig


def _held(values: Tensor) -> np.ndarray:
    """The share of the sum of squares that the first 0, 1, … K values hold, (K + 1,)."""
    energy = values.double().square().cumsum(0).cpu().numpy()
    return np.concatenate([[0.0], energy / energy[-1]])


def _break_even(axes: Axes, shape: tuple[int, int]) -> None:
    """Nothing; draws a line at the rank above which nothing is saved."""
    rank = break_even_rank(*shape)
    axes.axvline(rank, color="black", linestyle=":", linewidth=1.5, label="break-even rank")


def _bars(axes: Axes, x: np.ndarray, rows: Sequence[np.ndarray], look: Mapping) -> None:
    """Nothing; draws the mean of each row of values with its 95 % interval."""
    mean, half = zip(*map(over_seeds_and_texts, rows), strict=True)
    axes.errorbar(x, mean, half, **look)
