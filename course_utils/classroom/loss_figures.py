"""Figures of notebook 03: temperature, likeness of classes, KL, and what a loss is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import torch
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from course_utils.classroom.attention_view import WHITE_TO_BLUE
from course_utils.classroom.lines import LOOKS
from course_utils.classroom.live import Live, Picture, ipywidgets
from course_utils.classroom.plots import COLOURS, STYLE, png
from course_utils.errors import DataError

COLDEST, WARMEST = 0.25, 20.0
FEW = (0.25, 1.0, 4.0, 20.0)  # the temperatures of the still figure
# Sanh et al. 2019 (DistilBERT), Table 4: change in the mean over GLUE, in points.
TABLE_4 = {
    "without soft": -2.96,
    "without cosine": -1.46,
    "without MLM": -0.31,
    "random start": -3.69,
}


def softened(logits: Tensor, temperatures: Sequence[float]) -> dict[str, np.ndarray]:
    """Means over N texts at each of K temperatures: `entropy` in nats, `top 1`, `top 2`, `top 3`.

    `logits` is (N, C); "top k" is the probability of a text's k most probable classes together.
    """
    scales = torch.tensor(list(temperatures), dtype=torch.float64)[:, None, None]
    log_probs = (logits.double() / scales).log_softmax(-1)  # (K, N, C)
    probs = log_probs.exp()
    mass = probs.sort(dim=-1, descending=True).values.cumsum(-1)
    means = {"entropy": -(probs * log_probs).sum(-1).mean(1).numpy()}
    return means | {f"top {k}": mass[..., k - 1].mean(1).numpy() for k in (1, 2, 3)}


def temperature_figure(
    one: Tensor,
    many: Tensor,
    labels: Sequence[str],
    *,
    name: str = "this text",
    temperatures: Sequence[float] = FEW,
) -> Figure:
    """A figure of one text's classes at each temperature, above what T does to many texts.

    `one` holds the logits (C,) of the text whose bars are drawn, `many` those (N, C) of the others.
    Below are the mean entropy and the mean probability of the 1, 2 and 3 most probable classes,
    with a mark at each temperature. Raises `DataError` when shapes and labels do not fit.
    """
    if not one.shape[-1] == many.shape[-1] == len(labels):
        raise DataError(
            f"{len(labels)} labels do not fit logits of shape {tuple(one.shape)} and "
            f"{tuple(many.shape)}."
        )
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 5.6))
        above, below = fig.subfigures(2, 1, height_ratios=(1.1, 1))
        bars = above.subplots(1, len(temperatures), sharey=True, squeeze=False)[0]
        for axes, temperature in zip(bars, temperatures, strict=True):
            _beliefs(axes, one, labels, temperature)
        entropy, mass = below.subplots(1, 2)
        _curves(entropy, mass, many, temperatures)
        above.suptitle(f"What does T do to {name} …", x=0.01, ha="left", fontsize=13)
        below.suptitle(f"… and to {len(many)} texts, on average?", x=0.01, ha="left", fontsize=13)
    return fig


def _beliefs(axes: Axes, logits: Tensor, labels: Sequence[str], temperature: float) -> None:
    """Bars of the softmax of logits (C,) at one temperature."""
    probs = (logits.double() / temperature).softmax(-1).tolist()
    axes.barh(range(len(labels)), probs, color=COLOURS["blue"])
    axes.set_yticks(range(len(labels)), labels, fontsize=9)
    axes.set(xlim=(0, 1), xticks=(0, 0.5, 1), xlabel="probability")
    axes.set_ylim(len(labels) - 0.4, -0.6)  # the first class on top
    axes.set_title(f"T = {temperature:.3g}", fontsize=11)


def _curves(entropy: Axes, mass: Axes, logits: Tensor, marks: Sequence[float]) -> None:
    grid = np.geomspace(COLDEST, WARMEST, 60)
    means, highest = softened(logits, grid), np.log(logits.shape[-1])
    names = {"entropy": "mean entropy"} | {f"top {k}": f"the {k} best" for k in (3, 2)}
    for axes, measures in ((entropy, ["entropy"]), (mass, ["top 3", "top 2", "top 1"])):
        for measure, (colour, dash, _) in zip(measures, LOOKS, strict=False):
            look = {"color": COLOURS[colour], "linestyle": dash}
            axes.plot(grid, means[measure], label=names.get(measure, "the best class"), **look)
        for mark in marks:
            axes.axvline(mark, color="0.5", linewidth=1, zorder=1)
        axes.set_xscale("log")
        axes.set_xticks([0.25, 0.5, 1, 2, 4, 8, 20], ["¼", "½", "1", "2", "4", "8", "20"])
        axes.xaxis.minorticks_off()
        axes.set_xlabel("temperature T")
    entropy.axhline(highest, color="0.3", linewidth=1, linestyle=":")
    entropy.text(COLDEST, highest, f"all {logits.shape[-1]} alike", va="bottom", fontsize=9)
    entropy.set(ylabel="entropy, nats", ylim=(0, highest * 1.15))
    mass.set(ylabel="probability", ylim=(0, 1.05))
    mass.legend(fontsize=9, loc="lower left")


def temperature_slider(
    one: Tensor, many: Tensor, labels: Sequence[str], *, name: str = "this text"
) -> None:
    """Nothing; shows `temperature_figure` for one temperature, with a slider from 0.25 to 20."""
    slider = ipywidgets.FloatLogSlider(
        value=2.0,
        base=2.0,
        min=float(np.log2(COLDEST)),
        max=float(np.log2(WARMEST)),
        step=0.05,
        description="T",
        readout_format=".2f",
        continuous_update=False,
        layout=ipywidgets.Layout(width="60%"),
    )
    picture = Picture()

    def draw(_: object = None) -> None:
        now = temperature_figure(one, many, labels, name=name, temperatures=[slider.value])
        probs = (one.double() / slider.value).softmax(-1)
        best = int(probs.argmax())
        alt = f"At T = {slider.value:.3g}, {name}: {labels[best]} has {probs[best]:.0%}, the most."
        picture.show(png(now), alt=alt)

    slider.observe(draw, names="value")
    draw()
    display(Live("A slider for the temperature. It needs a running kernel.", [slider, picture]))


def likeness(probs: Tensor, labels: Sequence[int] | Tensor) -> Tensor:
    """How a teacher shares out its doubt, (C, C): row i is the mean over texts of class i.

    `probs` is (N, C), `labels` (N,). Of each text, what it gives to the text's own class is left
    out and the rest scaled to add up to 1; so the diagonal is 0. A class without texts has zeros.
    """
    labels = torch.as_tensor(labels)
    others = probs.double().scatter(1, labels[:, None], 0.0)
    others = others / others.sum(1, keepdim=True)
    table = torch.zeros(probs.shape[1], probs.shape[1], dtype=torch.float64)
    counts = labels.bincount(minlength=probs.shape[1]).clamp(min=1)
    return table.index_add(0, labels, others) / counts[:, None]


def likeness_figure(tables: Mapping[str, Tensor], labels: Sequence[str]) -> Figure:
    """A figure with a map of each table (C, C), each cell with its number; see `likeness`."""
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 4.9))
        grid = fig.subplots(1, len(tables), sharey=True, squeeze=False)[0]
        for axes, (title, table) in zip(grid, tables.items(), strict=True):
            axes.imshow(table.numpy(), cmap=WHITE_TO_BLUE, vmin=0, vmax=0.6)
            axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=9)
            axes.set_yticks(range(len(labels)), labels, fontsize=9)
            for i, j in np.ndindex(*table.shape):
                if i != j:
                    colour = "white" if table[i, j] > 0.4 else "black"
                    text = f"{100 * table[i, j]:.0f}"
                    axes.text(j, i, text, ha="center", va="center", color=colour, size=8)
            axes.set_title(title, fontsize=11)
            axes.grid(False)
        grid[0].set_ylabel("the text's own library")
        fig.suptitle("If not this library, which one? (per cent)", x=0.01, ha="left", fontsize=13)
    return fig


def entropy_figure(teacher: Tensor, students: Mapping[str, Tensor]) -> Figure:
    """A figure of CE(p, q) = H(p) + KL(p‖q): a bar per student q, cut where the entropy ends.

    `teacher` is p (C,), `students` holds a q (C,) per name; all are probabilities above 0.
    """
    entropy = float(-(teacher * teacher.log()).sum())
    extra = {name: float((teacher * (teacher / q).log()).sum()) for name, q in students.items()}
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 1.3 + 0.6 * len(students)))
        axes = fig.add_subplot(xlabel="nats")
        names = list(extra)
        axes.barh(names, entropy, color=COLOURS["sky"], label="H(p), the teacher's own doubt")
        rest = list(extra.values())
        look = {"color": COLOURS["vermillion"], "hatch": "//", "edgecolor": "white"}
        axes.barh(names, rest, left=entropy, label="KL(p‖q), what the student adds", **look)
        for k, value in enumerate(rest):
            total = f"{entropy:.4f} + {value:.4f} = {entropy + value:.4f}"
            axes.text(entropy + value, k, f"  {total}", va="center", fontsize=10)
        axes.axvline(entropy, color="black", linewidth=1)
        axes.set_xlim(0, 1.45 * (entropy + max(rest)))
        axes.invert_yaxis()
        axes.grid(False)
        fig.legend(fontsize=9, loc="outside lower center", ncols=2)
        axes.set_title("What is a cross-entropy made of?")
    return fig


def humps_figure(x: Tensor, target: Tensor, fits: Mapping[str, Tensor]) -> Figure:
    """A figure of a density with two humps and of the one-humped densities fitted to it."""
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.6))
        axes = fig.add_subplot(xlabel="x", ylabel="density")
        axes.fill_between(x, target, color="0.85", label="p, the target")
        for (name, density), (colour, dash, _) in zip(fits.items(), LOOKS, strict=False):
            axes.plot(x, density, color=COLOURS[colour], linestyle=dash, label=name)
        axes.set_ylim(bottom=0)
        axes.legend()
        axes.set_title("One hump for two: what does each direction of KL choose?")
    return fig


def ablation_figure(
    paper: Mapping[str, float], ours: Mapping[str, Sequence[float]], *, unit: str, lowest: float
) -> Figure:
    """A figure of what is lost when a part is left out: the paper's numbers, and ours by seed.

    Both map what was changed to a difference; `ours` has one per seed, drawn as a dot each. Our
    axis begins at `lowest`; the mean of a bar that goes on is written on it.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.4))
        left, right = fig.subplots(1, 2)
        left.barh(list(paper), list(paper.values()), color=COLOURS["blue"])
        for k, value in enumerate(paper.values()):
            left.text(value, k, f"{value:.2f} ", ha="right", va="center", fontsize=10)
        left.set_xlim(1.3 * min(paper.values()), 0.15)
        left.set(xlabel="points of GLUE")
        left.set_title("DistilBERT, Table 4", fontsize=11)
        means = [float(np.mean(differences)) for differences in ours.values()]
        right.barh(list(ours), means, color=COLOURS["orange"])
        for k, (mean, differences) in enumerate(zip(means, ours.values(), strict=True)):
            right.plot(differences, [k] * len(differences), "o", color="black", markersize=5)
            if mean < lowest:
                right.text(lowest, k, f" ← {mean:.0f}", va="center", fontsize=10)
        right.set_xlim(lowest, max(1.0, 1.2 * max(map(max, ours.values()))))
        right.set(xlabel=unit)
        right.set_title("ours, a dot per seed", fontsize=11)
        for axes in (left, right):
            axes.axvline(0, color="black", linewidth=1)
            axes.invert_yaxis()
            axes.grid(axis="y", visible=False)
        fig.suptitle("What is missed when it is left out?", x=0.01, ha="left", fontsize=13)
    return fig
