"""Figures of notebook 02: who owns a model, what it learns to guess, what each layer knows."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from course_utils.classroom.attention_view import WHITE_TO_BLUE
from course_utils.classroom.lines import LOOKS
from course_utils.classroom.plots import COLOURS, STYLE

LEAST_SHARE = 0.02  # a part that is smaller in every bar goes into "everything else"
LEAST_WRITTEN = 0.05  # a smaller share has no room for its number
REST = "everything else"
PARTS = {  # how each part looks: its colour, and its hatch for those who see none
    "word embeddings": (COLOURS["blue"], ""),
    "attention": (COLOURS["vermillion"], "//"),
    "attention projections": (COLOURS["vermillion"], "//"),
    "attention scores": (COLOURS["orange"], "xx"),
    "feed-forward": (COLOURS["green"], ".."),
    "head": (COLOURS["purple"], "--"),
    REST: ("#999999", r"\\"),
}
WHITE_BOX = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}

Row = Mapping[str, Any]
Guesses = Sequence[Sequence[Sequence[tuple[str, float]]]]


def parts_figure(rows: Sequence[Row], *, per: float, unit: str, title: str) -> Figure:
    """A figure with one bar per model, cut into the shares of its parts.

    `rows` are those of `anatomy.compare`. Under a model's name stands its total, divided by `per`
    and followed by `unit`. Parts that are small in every model are drawn as one.
    """
    bars = merge_small(rows)
    totals = {model: sum(amounts.values()) for model, amounts in bars.items()}
    names = [f"{model}\n{total / per:,.1f} {unit}" for model, total in totals.items()]
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 1.6 + 0.55 * len(bars)))
        axes = fig.add_subplot(xlabel="share, %", title=title, xlim=(0, 100))
        left = np.zeros(len(bars))
        for part in next(iter(bars.values())):
            shares = np.array([bars[model][part] / totals[model] for model in bars])
            colour, hatch = PARTS[part]
            look = {"color": colour, "hatch": hatch, "edgecolor": "white"}
            drawn = axes.barh(names, 100 * shares, left=left, label=part, **look)
            written = [f"{share:.0%}" if share >= LEAST_WRITTEN else "" for share in shares]
            axes.bar_label(drawn, written, label_type="center", fontsize=9, bbox=WHITE_BOX)
            left += 100 * shares
        axes.invert_yaxis()
        axes.grid(False)
        fig.legend(loc="outside lower center", ncols=5, fontsize=9)
    return fig


def merge_small(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """The amounts by model and part; parts that are small in every model are one, the last."""
    large = {row["part"] for row in rows if row["share"] >= LEAST_SHARE}
    parts = dict.fromkeys(row["part"] for row in rows if row["part"] in large)
    if any(row["amount"] for row in rows if row["part"] not in large):
        parts[REST] = None
    bars: dict[str, dict[str, int]] = {}
    for row in rows:
        bar = bars.setdefault(row["model"], dict.fromkeys(parts, 0))
        if row["amount"]:
            bar[row["part"] if row["part"] in large else REST] += row["amount"]
    return bars


def guesses_figure(seen: Mapping[int, Guesses], texts: Sequence[str]) -> Figure:
    """A figure of the first guess for the gap of each text, from the first step to the last.

    `seen` is what `WatchGuesses` kept; of a text with several gaps the first one is shown.
    """
    best = {step: [guesses[0][0] for guesses in each] for step, each in seen.items()}
    probs = np.array([[prob for _, prob in row] for row in best.values()])
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 2.0 + 0.42 * len(best)))
        axes = fig.add_subplot(title="What does it guess for the gap?", ylabel="optimizer step")
        image = axes.imshow(probs, cmap=WHITE_TO_BLUE, vmin=0, vmax=1, aspect="auto")
        for (row, column), prob in np.ndenumerate(probs):
            word = list(best.values())[row][column][0]
            colour = "white" if prob > 0.6 else "black"
            look = {"ha": "center", "va": "center", "color": colour, "parse_math": False}
            axes.text(column, row, word, **look)
        axes.set_yticks(range(len(best)), best)
        heads = [textwrap.fill(text.replace("[MASK]", "____"), 24) for text in texts]
        axes.set_xticks(range(len(texts)), heads, fontsize=9, parse_math=False)
        axes.xaxis.tick_top()
        axes.title.set_y(1.0)
        axes.grid(False)
        fig.colorbar(image, ax=axes, label="probability")
    return fig


def layers_figure(
    probes: Mapping[str, Sequence[Mapping[str, float]]],
    alike: np.ndarray,
    *,
    chance: Sequence[float],
) -> Figure:
    """A figure of what probes get right after each layer, beside how alike the layers are.

    `probes` has what `linear_probe` found, by the question that was asked, and `chance` the share
    that guessing gets right; `alike` (L, L) is a `cka_matrix`. Layer 0 is the embeddings.
    """
    layers = np.arange(len(alike))
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.8))
        left, right = fig.subplots(1, 2)
        for (question, found), guessing, look in zip(probes.items(), chance, LOOKS, strict=False):
            colour, dash, marker = COLOURS[look[0]], *look[1:]
            names = ("accuracy", "accuracy_low", "accuracy_high")
            share, low, high = 100 * np.array([[layer[name] for layer in found] for name in names])
            line = {"color": colour, "linestyle": dash, "marker": marker, "capsize": 4}
            left.errorbar(layers, share, [share - low, high - share], label=question, **line)
            left.axhline(100 * guessing, color=colour, linestyle=":", linewidth=1.2)
        left.set(xlabel="layer (0: embeddings)", ylabel="probe right, %", ylim=(0, 100))
        left.set_title("What does a layer know?")
        left.set_xticks(layers)
        left.legend(loc="lower right", bbox_to_anchor=(1, 0.12), fontsize=9)
        image = right.imshow(alike, cmap=WHITE_TO_BLUE, vmin=0, vmax=1, origin="lower")
        for (row, column), value in np.ndenumerate(alike):
            colour = "white" if value > 0.6 else "black"
            right.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour, size=9)
        right.set(xlabel="layer", ylabel="layer", xticks=layers, yticks=layers)
        right.set_title("How alike are two layers?")
        right.grid(False)
        fig.colorbar(image, ax=right, label="CKA, 1: the same")
    return fig
