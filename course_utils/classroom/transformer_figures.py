"""Figures of notebook 01: from a word that looks around to what a block is and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import matplotlib
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from course_utils.classroom.lines import Panel, lines_figure
from course_utils.classroom.plots import COLOURS, STYLE

Point = Sequence[float]

STREAM, BRANCH = 0.0, 1.0  # heights in the drawing
KINDS = {"attention": "blue", "feed-forward": "green", "norm": "orange"}


def meaning_figure(word: str, places: Mapping[str, Point], seen: Mapping[str, Point]) -> Figure:
    """A figure of words in a plane, and of where `word` moves to in each text of `seen`."""
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(6.4, 4.2))
        axes = fig.add_subplot(xlabel="water", ylabel="money")
        axes.margins(0.25)
        for name, place in places.items():
            axes.plot(*place, "o", color="black")
            axes.annotate(name, place, xytext=(8, 6), textcoords="offset points")
        for (text, place), name in zip(seen.items(), COLOURS, strict=False):
            arrow = {"arrowstyle": "-|>", "color": COLOURS[name], "linewidth": 2}
            axes.annotate("", place, places[word], arrowprops=arrow)
            look = {"textcoords": "offset points", "color": COLOURS[name]}
            axes.annotate(f"in “{text}”", place, xytext=(4, 8), **look)
        axes.set_title(f"What does “{word}” mean once it has looked around?")
    return fig


def saturation_figure(sizes: Sequence[int], measured: Mapping[str, Sequence[Point]]) -> Figure:
    """A figure of three measures of the softmax against d; per size: as it is, divided by √d."""
    names = ("as they are", "divided by √d")
    lines = {
        measure: dict(zip(names, zip(*pairs, strict=True), strict=True))
        for measure, pairs in measured.items()
    }
    variance, *others = (
        Panel(sizes, both, "d, size of a key", title=measure, log="x", ylim=(0, 1.05))
        for measure, both in lines.items()
    )
    variance = replace(variance, log="xy", ylim=(None, None))
    return lines_figure("What do large vectors do to the softmax?", variance, *others, legend=1)


def gradient_figure(depths: Sequence[int], norms: Mapping[str, Mapping[int, Tensor]]) -> Figure:
    """A figure of gradient norms by kind of block: in the last by depth, and in all of the deepest.

    `norms[kind][depth]` holds one norm per block.
    """
    last = {
        kind: [by_depth[depth][-1].item() for depth in depths] for kind, by_depth in norms.items()
    }
    each = {kind: by_depth[depths[-1]].tolist() for kind, by_depth in norms.items()}
    floor, blocks = (0, None), range(depths[-1])
    return lines_figure(
        "How much gradient does a block get?",
        Panel(depths, last, "layers", "gradient norm", "in the last block", "x", floor),
        Panel(
            blocks,
            each,
            "block, from first to last",
            title=f"in each of {depths[-1]} blocks",
            ylim=floor,
        ),
    )


def similarities(table: Tensor) -> Tensor:
    """How alike the rows of a table (S, H) are, (S, S): cosines, once the mean row is taken off."""
    unit = F.normalize(table - table.mean(0), dim=1)
    return unit @ unit.T


def positions_figure(tables: Mapping[str, Tensor]) -> Figure:
    """A figure with a map of `similarities` for each table of position vectors (S, H)."""
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.8))
        panels = fig.subplots(1, len(tables), sharey=True)
        for axes, (title, table) in zip(panels, tables.items(), strict=True):
            image = axes.imshow(similarities(table).numpy(), cmap="PuOr_r", vmin=-1, vmax=1)
            axes.set_xlabel("position")
            axes.set_title(title, fontsize=11)
            axes.grid(False)
        panels[0].set_ylabel("position")
        fig.colorbar(image, ax=panels, label="similarity")
        fig.suptitle("Which positions look alike?", x=0.01, ha="left", fontsize=13)
    return fig


def cost_figure(lengths: Sequence[int], ms: Sequence[Point], megabytes: Sequence[Point]) -> Figure:
    """A figure of time and memory by length; for each length: pairs of tokens, all the rest."""
    names = ("pairs of tokens: scores, weights", "each token: all the rest")
    panels = [
        Panel(
            lengths,
            dict(zip(names, zip(*both, strict=True), strict=True)),
            "tokens",
            what,
            log="xy",
        )
        for both, what in (
            (ms, "milliseconds, forward"),
            (megabytes, "megabytes kept for backward"),
        )
    ]
    return lines_figure("What does a longer text cost?", *panels, legend=1)


def learning_figure(
    question: str, curves: Mapping[str, Sequence[float]], *, mean_of: int = 10
) -> Figure:
    """A figure of shares of right answers by training step, each point the mean of some steps."""
    smooth = {
        name: [
            sum(curve[k - mean_of : k]) / mean_of for k in range(mean_of, len(curve) + 1, mean_of)
        ]
        for name, curve in curves.items()
    }
    steps = range(mean_of, max(map(len, curves.values())) + 1, mean_of)
    return lines_figure(
        question, Panel(steps, smooth, "training step", "share of right answers", ylim=(0, 1.05))
    )


def blocks_figure() -> Figure:
    """A drawing of a post-LN and a pre-LN block: a stream from left to right, and two branches."""
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.9))
        upper, lower = fig.subplots(2, 1)
        _block(upper, "post-LN, as in BERT: the norm stands on the stream", pre_norm=False)
        _block(lower, "pre-LN: the norm stands in the branch", pre_norm=True)
        fig.suptitle("What is in a block, and where does the norm stand?", x=0.01, ha="left")
    return fig


def _block(axes: Axes, title: str, *, pre_norm: bool) -> None:
    axes.set(xlim=(0, 10), ylim=(-0.6, 1.6))
    axes.set_axis_off()
    axes.set_title(title, fontsize=11, loc="left")
    _arrow(axes, (0.1, STREAM), (9.9, STREAM), width=3)
    for start, part in ((1.0, "attention"), (5.3, "feed-forward")):
        end = start + (3.3 if pre_norm else 2.3)
        _arrow(axes, (start, STREAM), (start, BRANCH), (end, BRANCH), (end, STREAM + 0.2))
        axes.text(end, STREAM, "+", bbox=_box("black", "circle,pad=0.15"), ha="center", va="center")
        if pre_norm:
            _part(axes, start + 0.7, BRANCH, "norm")
            _part(axes, start + 2.2, BRANCH, part)
        else:
            _part(axes, start + 1.15, BRANCH, part)
            _part(axes, end + 0.9, STREAM, "norm")


def _part(axes: Axes, x: float, y: float, name: str) -> None:
    axes.text(
        x, y, name, bbox=_box(COLOURS[KINDS[name]], "round,pad=0.4"), ha="center", va="center"
    )


def _box(edge: str, style: str) -> dict[str, object]:
    return {"boxstyle": style, "facecolor": "white", "edgecolor": edge, "linewidth": 2}


def _arrow(axes: Axes, *points: tuple[float, float], width: float = 1.5) -> None:
    """A line through the points; its last stretch ends in a head."""
    axes.plot(*zip(*points[:-1], strict=True), color="0.35", linewidth=width, zorder=0)
    axes.annotate(
        "",
        xy=points[-1],
        xytext=points[-2],
        arrowprops={"arrowstyle": "-|>", "color": "0.35", "linewidth": width, "shrinkA": 0},
        zorder=0,
    )
