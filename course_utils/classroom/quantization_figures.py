"""Figures of notebook 10: stairs, outliers, cuts, files, what each method costs; and sliders."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
import torch
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from torch import Tensor

from course_utils.classroom.lines import LOOKS
from course_utils.classroom.live import Live, Picture, ipywidgets
from course_utils.classroom.plots import COLOURS, STYLE, png
from course_utils.compress.calibration_ranges import Observed
from course_utils.compress.quantization import (
    QParams,
    dequantize,
    error,
    from_range,
    quantize_tensor,
)
from course_utils.measure.accuracy import over_seeds_and_texts

POINTS = 800  # of a staircase
BARS = 128  # of a histogram
HATCHES = ("", "//", "..")


def stairs_figure(x: Tensor, ways: Mapping[str, QParams]) -> Figure:
    """A figure with a panel per way: what each real number becomes, and `x` on the stairs.

    Each pair of parameters is one for the whole tensor.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.6))
        charts = fig.subplots(1, len(ways), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (name, q) in zip(charts, ways.items(), strict=True):
            _stairs(axes, x, q)
            axes.set_title(name, fontsize=11)
        charts[0].set_ylabel("what the integer stands for")
        charts[0].legend(fontsize=9, loc="upper left")
        fig.suptitle("What becomes of a number?", x=0.01, ha="left", fontsize=13)
    return fig


def outliers_figure(layers: Mapping[str, Observed]) -> Figure:
    """A figure with a panel per linear layer: the peak of each of its inputs, on a log axis.

    The largest is marked, the median is a line.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.6))
        charts = fig.subplots(1, len(layers), sharey=True, squeeze=False)[0]
        for axes, (name, seen) in zip(charts, layers.items(), strict=True):
            peaks = seen.channel_max.numpy()
            largest = int(peaks.argmax())
            axes.vlines(range(len(peaks)), 1e-3, peaks, color=COLOURS["sky"], linewidth=0.6)
            axes.plot(largest, peaks[largest], "o", color=COLOURS["vermillion"], label="largest")
            axes.axhline(np.median(peaks), color="black", linestyle=":", label="median")
            axes.set_yscale("log")
            axes.set_ylim(bottom=min(peaks[peaks > 0], default=1e-2) / 2)
            axes.set_xlabel("input of the layer, by number")
            axes.set_title(name, fontsize=10)
        charts[0].set_ylabel("largest size seen")
        charts[0].legend(fontsize=9, loc="lower left")
        fig.suptitle("Do all inputs need the same range?", x=0.01, ha="left", fontsize=13)
    return fig


def cuts_figure(layers: Mapping[str, tuple[Observed, Mapping[str, tuple[float, float]]]]) -> Figure:
    """A figure with a panel per layer: how often its inputs had which value, and every cut.

    A layer has what was seen of it, and a range (low, high) for each method, four at most.
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.8))
        charts = fig.subplots(1, len(layers), squeeze=False)[0]
        for axes, (name, (seen, cuts)) in zip(charts, layers.items(), strict=True):
            counts = seen.counts.numpy().reshape(BARS, -1).sum(1)
            axes.stairs(
                counts,
                np.linspace(seen.low, seen.high, BARS + 1),
                fill=True,
                color=COLOURS["sky"],
                alpha=0.6,
            )
            for (colour, dash, _), (method, ends) in zip(LOOKS, cuts.items(), strict=False):
                for k, end in enumerate(ends):
                    label = None if k else method
                    axes.axvline(end, color=COLOURS[colour], linestyle=dash, label=label)
            axes.set_yscale("log")
            axes.set_xlabel("what goes into the layer")
            axes.set_title(name, fontsize=10)
        charts[0].set_ylabel("how often")
        charts[-1].legend(fontsize=9)
        fig.suptitle("Where does each method cut the range?", x=0.01, ha="left", fontsize=13)
    return fig


def files_figure(files: Mapping[str, Mapping[str, float]]) -> Figure:
    """A figure with a bar per file: megabytes of each of its parts, three at most, and the sum."""
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 1.4 + 0.55 * len(files)))
        axes = fig.add_subplot(xlabel="MB")
        parts = list(next(iter(files.values())))
        left = np.zeros(len(files))
        for part, (colour, *_), hatch in zip(parts, LOOKS, HATCHES, strict=False):
            widths = np.array([file[part] for file in files.values()])
            axes.barh(
                range(len(files)),
                widths,
                left=left,
                color=COLOURS[colour],
                hatch=hatch,
                edgecolor="white",
                label=part,
            )
            left += widths
        for row, total in enumerate(left):
            axes.text(total, row, f" {total:.1f}", va="center")
        axes.set_yticks(range(len(files)), files)
        axes.set_ylim(len(files) - 0.4, -0.6)
        axes.set_xlim(0, 1.12 * left.max())
        axes.legend(fontsize=9, loc="lower right")
        axes.set_title("What is in the file?")
    return fig


def methods_figure(
    costs: Mapping[str, Mapping[str, float]], right: Mapping[str, np.ndarray]
) -> Figure:
    """A figure with a panel per cost: accuracy, with its interval, over what each method costs.

    Costs are above 0, their axes logarithmic. `costs` maps the label of an axis to {method: cost},
    `right` a method to 100 for each text that is right, else 0, (N,).
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 4))
        charts = fig.subplots(1, len(costs), sharey=True, squeeze=False)[0]
        for axes, (label, cost) in zip(charts, costs.items(), strict=True):
            for method, colour, marker in zip(right, COLOURS.values(), "osD^vP*X", strict=False):
                mean, half = over_seeds_and_texts(right[method])
                look = {"fmt": marker, "color": colour, "capsize": 3}
                axes.errorbar(cost[method], mean, half, label=method, **look)
            axes.set_xlabel(label)
            axes.set_xscale("log")  # one slow method must not press all others into a corner
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_locator(NullLocator())
        charts[0].set_ylabel("right, %")
        fig.legend(*charts[0].get_legend_handles_labels(), loc="outside right center", fontsize=9)
        fig.suptitle("What does each method cost, and what does it save?", x=0.01, ha="left")
    return fig


def quantize_by_slider(x: Tensor) -> None:
    """Nothing; shows bits, form and limit to choose, below them the stairs and both errors.

    Its twin for pages without a kernel is `stairs_figure`.
    """
    bits = ipywidgets.IntSlider(value=3, min=2, max=8, description="bits")
    form = ipywidgets.Dropdown(options=["symmetric", "asymmetric"], description="form")
    keep = ipywidgets.FloatSlider(
        value=1.0, min=0.1, max=1.0, step=0.05, readout_format=".0%", description="range"
    )
    picture = Picture()

    def draw(_: object = None) -> None:
        q = from_range(
            keep.value * x.min(),
            keep.value * x.max(),
            bits=bits.value,
            symmetric=form.value == "symmetric",
        )
        made = error(x, q)
        name = f"error squared: rounding {made.rounding:.2g}, clipping {made.clipping:.2g}"
        alt = f"Numbers and their stairs, {bits.value} bits, {form.value}; {name}."
        picture.show(png(stairs_figure(x, {name: q})), alt=alt, width=600)

    for control in (bits, form, keep):
        control.observe(draw, names="value")
    draw()
    display(
        Live("Sliders for bits and range. They need a running kernel.", [bits, form, keep, picture])
    )


def _stairs(axes: Axes, x: Tensor, q: QParams) -> None:
    margin = 0.2 * (x.max() - x.min())
    line = torch.linspace(float(x.min() - margin), float(x.max() + margin), POINTS)
    axes.plot(line, line, color="#999999", linestyle=":", label="the number itself")
    axes.plot(line, dequantize(quantize_tensor(line, q), q), color=COLOURS["blue"], label="stored")
    stored = dequantize(quantize_tensor(x, q), q)
    axes.vlines(x, torch.minimum(x, stored), torch.maximum(x, stored), color=COLOURS["vermillion"])
    axes.plot(x, stored, "o", color=COLOURS["vermillion"], label="our numbers")
    axes.set_xlabel("a real number")
