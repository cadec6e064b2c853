"""Figures of notebook 08: what each ranking prefers, what goes at what price; prune by slider."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib
import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from transformers import PreTrainedModel

from course_utils.classroom.lines import LOOKS
from course_utils.classroom.live import Live, ipywidgets
from course_utils.classroom.plots import COLOURS, STYLE
from course_utils.classroom.student_figures import WHITE_TO_BLUE
from course_utils.compress.importance import Importance
from course_utils.compress.pruning import encoder_parameters, keep_most_important, remove
from course_utils.measure.accuracy import over_seeds_and_texts

Right = np.ndarray  # 100 for each text that is right, else 0: (seeds, texts)
Curve = Sequence[tuple[float, Right]]  # a place on the x axis, and what was measured there
MOST_GONE = 0.95  # how far the sliders go


def head_ranks(importance: Importance) -> np.ndarray:
    """The place of every head among all of them, (layers, heads): 0 for the first to go.

    Of equals the one in the lower layer, and there with the lower number, is first. All layers have
    as many heads.
    """
    scores = np.stack([layer.numpy() for layer in importance.heads])  # (L, A)
    ranks = np.empty(scores.size, int)
    ranks[scores.flatten().argsort(kind="stable")] = np.arange(scores.size)
    return ranks.reshape(scores.shape)


def ranks_figure(rankings: Mapping[str, Importance]) -> Figure:
    """A figure with a map per ranking: layers upwards, heads to the right, dark for those to stay.

    A cross marks the half that goes first.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 2.7))
        panels = fig.subplots(1, len(rankings), sharey=True, squeeze=False)[0]
        for axes, (name, importance) in zip(panels, rankings.items(), strict=True):
            ranks = head_ranks(importance)
            look = {"cmap": WHITE_TO_BLUE, "vmin": 0, "vmax": ranks.size, "origin": "lower"}
            image = axes.imshow(ranks, **look, aspect="auto")
            rows, columns = np.nonzero(ranks < ranks.size // 2)
            axes.plot(columns, rows, "x", color="#666666", markersize=4, markeredgewidth=1)
            axes.set_yticks(range(len(ranks)))
            axes.set_xticks(range(0, ranks.shape[1], max(1, ranks.shape[1] // 3)))
            axes.set_xlabel("head")
            axes.set_title(name, fontsize=11)
            axes.grid(False)
        panels[0].set_ylabel("layer")
        fig.colorbar(image, ax=list(panels), label="place (0: goes first)", shrink=0.8)
        fig.suptitle("Which heads would each ranking keep?", x=0.01, ha="left", fontsize=13)
    return fig


def curves_figure(
    question: str,
    panels: Mapping[str, Mapping[str, Curve]],
    *,
    xlabel: str,
    line: float,
) -> Figure:
    """A figure with a panel per moment, a curve per name in each, four at most, with intervals.

    Bars are 95 % intervals over seeds and texts; x holds shares from 0 to 1 and is drawn in
    percent. The level `line`, the model before anything went, is dotted.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.7))
        charts = fig.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (moment, curves) in zip(charts, panels.items(), strict=True):
            for look, (name, curve) in zip(LOOKS, curves.items(), strict=False):
                _with_intervals(
                    axes, [100 * x for x, _ in curve], [right for _, right in curve], name, look
                )
            axes.axhline(line, color="black", linestyle=":", linewidth=1)
            axes.set(xlabel=xlabel, xlim=(0, 100))
            axes.set_title(moment, fontsize=11)
        charts[0].set(ylabel="right, %", ylim=(0, None))
        charts[0].legend(fontsize=9, loc="lower left")
        fig.suptitle(question, x=0.01, ha="left", fontsize=13)
    return fig


def tradeoff_figure(
    costs: Mapping[str, Sequence[float]], right: Mapping[str, Sequence[Right]], names: Sequence[str]
) -> Figure:
    """A figure with a panel per cost: accuracy over it, a line per way, a point for each model.

    `costs` maps the label of an x axis to a number for each model, `right` the name of a line to
    what was measured of each model; `names` are the models', written at the foot of the first
    panel, below their points.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.7))
        charts = fig.subplots(1, len(costs), sharey=True, squeeze=False)[0]
        for axes, (label, cost) in zip(charts, costs.items(), strict=True):
            for look, (way, measured) in zip(LOOKS, right.items(), strict=False):
                _with_intervals(axes, cost, measured, way, look)
            axes.set_xlabel(label)
            axes.set_xlim(0, 1.15 * max(cost))
        at_the_foot = {"textcoords": "offset points", "ha": "center", "fontsize": 9}
        for name, x in zip(names, next(iter(costs.values())), strict=True):
            charts[0].annotate(name, (x, 0), (0, 4), **at_the_foot)
        charts[0].set(ylabel="right, %", ylim=(0, None))
        charts[-1].legend(fontsize=9, loc="lower right")
        fig.suptitle("What does a point of accuracy buy?", x=0.01, ha="left", fontsize=13)
    return fig


def slider_figure(shares: Sequence[float], percent: np.ndarray) -> Figure:
    """A heat map of accuracy: `percent` (neurons, heads), for these shares of either that are gone.

    The twin of `prune_by_slider` for pages without a kernel.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(7.2, 3.8))
        axes = fig.add_subplot(xlabel="heads gone, %", ylabel="neurons gone, %")
        look = {"cmap": WHITE_TO_BLUE, "vmin": 0, "origin": "lower", "aspect": "auto"}
        image = axes.imshow(percent, **look)
        for (row, column), value in np.ndenumerate(percent):
            look = {"color": "white" if value > percent.max() / 2 else "black"}
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", **look)
        ticks = range(len(shares)), [f"{100 * share:.0f}" for share in shares]
        axes.set_xticks(*ticks)
        axes.set_yticks(*ticks)
        axes.grid(False)
        fig.colorbar(image, ax=axes, label="right, %")
        axes.set_title("How much can go before anything is repaired?")
    return fig


def prune_by_slider(
    model: PreTrainedModel,
    rankings: Mapping[str, Importance],
    accuracy: Callable[[PreTrainedModel], float],
) -> None:
    """Nothing; shows a choice of rankings, two sliders, and below what is left of the model.

    Whenever one of them is moved, heads and neurons are removed anew from `model`, which stays as
    it is, and `accuracy` (0 to 1) is asked about what is left: give it texts that are encoded and
    kept, few enough for a second.
    """
    ranking = ipywidgets.Dropdown(options=list(rankings), description="ranking")
    sliders = [
        ipywidgets.FloatSlider(
            value=0.0,
            max=MOST_GONE,
            step=0.05,
            readout_format=".0%",
            continuous_update=False,  # each move is a model of its own
            description=f"{part} gone",
        )
        for part in ("heads", "neurons")
    ]
    table = ipywidgets.HTML()

    def draw(_: object = None) -> None:
        heads, neurons = (1 - slider.value for slider in sliders)
        kept = keep_most_important(rankings[ranking.value], heads=heads, neurons=neurons)
        small = remove(model, kept)
        left = encoder_parameters(small) / encoder_parameters(model)
        table.value = _bars({"right": accuracy(small), "parameters of the encoder": left})

    for control in (ranking, *sliders):
        control.observe(draw, names="value")
    draw()
    display(
        Live("Sliders for what is pruned. They need a running kernel.", [ranking, *sliders, table])
    )


def _bars(shares: Mapping[str, float]) -> str:
    """A table in HTML with a row per share: its name, its percent, and a bar of that length."""
    rows = [
        f'<tr><td>{name}</td><td style="text-align:right">{100 * share:.0f} %</td>'
        f'<td style="width:60%"><div style="width:{100 * share:.0f}%;height:10px;'
        f'background:{colour}"></div></td></tr>'
        for (name, share), colour in zip(shares.items(), COLOURS.values(), strict=False)
    ]
    return f'<table style="width:90%">{"".join(rows)}</table>'


def _with_intervals(
    axes: Axes, x: Sequence[float], measured: Sequence[Right], name: str, look: tuple[str, str, str]
) -> None:
    """Nothing; draws a line through the means, with a bar for the interval of each."""
    colour, dash, marker = look
    mean, half = zip(*map(over_seeds_and_texts, measured), strict=True)
    axes.errorbar(
        x,
        mean,
        half,
        color=COLOURS[colour],
        linestyle=dash,
        marker=marker,
        markersize=6,
        capsize=3,
        label=name,
    )
