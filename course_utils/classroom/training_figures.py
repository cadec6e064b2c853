"""Figures of notebook 05: what is hidden, how a loss falls, controls, a run that went on."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from course_utils.classroom.lines import LOOKS
from course_utils.classroom.plots import COLOURS, STYLE

PARTS = {  # of the loss: its name in a line of the log, and in words
    "soft": "soft (KL, with T²)",
    "masked_lm": "masked LM",
    "cosine": "cosine",
}
FATES = {  # what becomes of a token: its colour, hatch, letter
    "[MASK]": ("#A6CEE8", "", "M"),
    "another token": ("#F4B183", "////", "R"),
    "kept, and asked for": ("#99D8C4", "....", "K"),
    "not asked for": ("white", "", ""),
}
PER_LINE, LONGEST = 10, 11  # tokens in a line, letters of a token
EDGE = "#BFBFBF"

LogLine = Mapping[str, float]
Epoch = tuple[Sequence[str], Sequence[bool]]


def fates(
    tokens: Sequence[str], seen: Sequence[str], asked: Sequence[bool], *, mask: str = "[MASK]"
) -> list[str]:
    """What became of each token, a key of `FATES`.

    `tokens` stand in the text, `seen` is what a model reads instead, and `asked` says where it has
    to guess. A random token that happens to be the old one counts as kept: nobody can tell.
    """
    kinds = list(FATES)
    return [
        kinds[3] if not wanted else kinds[0] if now == mask else kinds[1 if now != token else 2]
        for token, now, wanted in zip(tokens, seen, asked, strict=True)
    ]


def masking_figure(
    tokens: Sequence[str], epochs: Mapping[str, Epoch], *, first: int = 40, mask: str = "[MASK]"
) -> Figure:
    """A figure of one block as it stands in the text, and below as a model reads it in each epoch.

    `tokens` are the block's (S,), `epochs` holds for each name what is seen and what is asked, both
    (S,); the `first` tokens are drawn, ten in a line.
    """
    tokens = list(tokens)[:first]
    n_lines = -(-len(tokens) // PER_LINE)
    panels = {"the text": (tokens, [""] * len(tokens))}
    for name, (seen, asked) in epochs.items():
        seen, asked = list(seen)[:first], [bool(each) for each in asked][:first]
        panels[name] = (seen, fates(tokens, seen, asked, mask=mask))
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 0.9 + len(panels) * (0.3 + 0.27 * n_lines)))
        grid = fig.subplots(len(panels), 1, squeeze=False)[:, 0]
        for axes, (name, (words, kinds)) in zip(grid, panels.items(), strict=True):
            _tokens(axes, words, kinds)
            n_asked = sum(kind not in ("", "not asked for") for kind in kinds)
            title = f"{name}: {n_asked} of {len(tokens)} asked for" if any(kinds) else name
            axes.set_title(title, fontsize=10)
        key = [
            Patch(facecolor=colour, hatch=hatch, edgecolor="0.5", label=f"{letter}  {kind}")
            for kind, (colour, hatch, letter) in FATES.items()
            if letter
        ]
        fig.legend(handles=key, loc="outside lower center", ncols=3, fontsize=9)
        fig.suptitle("What is hidden, epoch by epoch?", x=0.01, ha="left", fontsize=13)
    return fig


def _tokens(axes: Axes, words: Sequence[str], kinds: Sequence[str]) -> None:
    """Nothing; draws the tokens in lines of ten, each in a box that says what became of it."""
    for k, (word, kind) in enumerate(zip(words, kinds, strict=True)):
        row, column = divmod(k, PER_LINE)
        colour, hatch, letter = FATES.get(kind, FATES["not asked for"])
        look = {"facecolor": colour, "edgecolor": EDGE, "linewidth": 0.8}
        axes.add_patch(Rectangle((column, row), 1, 1, **look))
        if hatch:  # a stripe on the left, so that the word stays readable
            look = {"facecolor": "none", "edgecolor": "0.4", "linewidth": 0}
            axes.add_patch(Rectangle((column, row), 0.16, 1, hatch=hatch, **look))
        text = word if len(word) <= LONGEST else word[: LONGEST - 1] + "…"
        centre = {"ha": "center", "va": "center", "fontsize": 8, "parse_math": False}
        axes.text(column + (0.55 if letter else 0.5), row + 0.5, text, **centre)
        if letter:
            box = {"boxstyle": "square,pad=0.1", "facecolor": colour, "edgecolor": "none"}
            axes.text(column + 0.08, row + 0.5, letter, **centre, weight="bold", bbox=box)
    axes.set(xlim=(0, PER_LINE), ylim=(-(-len(words) // PER_LINE), 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.grid(False)


def losses_figure(logs: Mapping[str, Sequence[LogLine]]) -> Figure:
    """A figure with a panel per part of the loss, and in it a line per run that has this part.

    `logs` holds what `distil_mlm` returned by the name of the run; there are looks for four. The
    parts are as they are before weighing, so runs with other weights can be compared.
    """
    parts = [part for part in PARTS if any(part in line for log in logs.values() for line in log)]
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.6))
        for axes, part in zip(fig.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
            for log, (colour, dash, _) in zip(logs.values(), LOOKS, strict=False):
                here = [line for line in log if part in line]
                if here:
                    values = [line[part] for line in here]
                    look = {"color": COLOURS[colour], "linestyle": dash}
                    axes.plot([line["step"] for line in here], values, **look)
            axes.set_xlabel("step")
            axes.set_title(PARTS[part], fontsize=11)
            axes.set_yscale("log")
            plain_log_ticks(axes)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        fig.axes[0].set_ylabel("loss, mean per token")
        fig.legend(handles=_legend_of(logs), loc="outside lower center", ncols=4, fontsize=10)
        fig.suptitle("How does each part of the loss fall?", x=0.01, ha="left", fontsize=13)
    return fig


def plain_log_ticks(axes: Axes, *, of: str = "y") -> None:
    """Nothing; a logarithmic axis that is drawn already has a few ticks, in plain numbers.

    Over less than a power of ten they are evenly spaced, over many they are the powers alone.
    """
    axis = getattr(axes, f"{of}axis")
    low, high = axis.get_view_interval()
    subs = (1, 2, 5) if high / low < 200 else (1,)
    axis.set_major_locator(MaxNLocator(5) if high / low < 12 else LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())


def _legend_of(names: Iterable[str]) -> list[Line2D]:
    """A line for each name, in its order: not every run has a line in every panel."""
    looks = zip(names, LOOKS, strict=False)
    return [
        Line2D([], [], color=COLOURS[colour], linestyle=dash, label=name)
        for name, (colour, dash, _) in looks
    ]


def controls_figure(scores: Mapping[str, Mapping[str, float]]) -> Figure:
    """A figure of each model's perplexity and agreement with the teacher, with 95 % intervals.

    `scores` holds what `measure.guessing.score_guesses` says by the name of the model, in the order
    from top to bottom. A model without `agreement`, the teacher, has no point on the right.
    """
    panels = {
        "perplexity": ("perplexity on held-out text (log scale)", 1.0),
        "agreement": ("same first guess as the teacher, %", 100.0),
    }
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 1.5 + 0.5 * len(scores)))
        grid = fig.subplots(1, 2, sharey=True)
        for axes, (measure, (label, factor)) in zip(grid, panels.items(), strict=True):
            for row, score in enumerate(scores.values()):
                if measure in score:
                    names = (measure, f"{measure}_low", f"{measure}_high")
                    _interval(axes, row, *(factor * score[name] for name in names))
            axes.set_xlabel(label, fontsize=10)
            axes.grid(axis="y", visible=False)
        left, right = grid
        left.set_xscale("log")
        left.margins(x=0.15)
        plain_log_ticks(left, of="x")
        right.set_xlim(0, 100)
        left.set_yticks(range(len(scores)), [textwrap.fill(name, 20) for name in scores])
        left.set_ylim(len(scores) - 0.4, -0.7)
        fig.suptitle("Does the teacher help?", x=0.01, ha="left", fontsize=13)
    return fig


def _interval(axes: Axes, row: int, value: float, low: float, high: float) -> None:
    """Nothing; draws a point with its interval, its number above it."""
    colour, _, marker = LOOKS[row % len(LOOKS)]
    look = {"color": COLOURS[colour], "marker": marker, "markersize": 5, "capsize": 5}
    axes.errorbar(value, row, xerr=[[value - low], [high - value]], **look)
    place = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center", "fontsize": 9}
    axes.annotate(f"{value:,.0f}" if value >= 100 else f"{value:.3g}", (value, row), **place)


def resume_figure(
    before: Sequence[LogLine],
    after: Sequence[LogLine],
    whole: Sequence[LogLine],
    *,
    killed_at: int,
    resumed_from: int,
    of: str = "total",
) -> Figure:
    """A figure of a run that was killed and went on, on top of one that was never stopped.

    The three are logs: of the run until it was killed, of the run that went on (what it has up to
    `resumed_from`, the step of its checkpoint, is not drawn again) and of the one left alone.
    """
    after = [line for line in after if line["step"] > resumed_from]
    runs = {
        "never stopped": (whole, {"color": "#C8C8C8", "linewidth": 7}),
        "until it was killed": (before, {"color": COLOURS["blue"], "marker": "o"}),
        "resumed": (after, {"color": COLOURS["vermillion"], "marker": "s", "linestyle": "--"}),
    }
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 3.9))
        axes = fig.add_subplot(xlabel="step", ylabel=f"loss ({of})")
        for name, (log, look) in runs.items():
            steps, values = [line["step"] for line in log], [line[of] for line in log]
            axes.plot(steps, values, label=name, markersize=5, **look)
        axes.axvline(resumed_from, color="0.5", linestyle=":", linewidth=1.5)
        axes.axvline(killed_at, color="black", linewidth=1.5)
        top = axes.get_ylim()[1]
        look = {"va": "top", "textcoords": "offset points", "fontsize": 10}
        axes.annotate("killed", (killed_at, top), (5, 0), **look)
        axes.annotate("checkpoint", (resumed_from, top), (-5, 0), ha="right", color="0.35", **look)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        fig.legend(loc="outside lower center", ncols=3, fontsize=10)
        axes.set_title("Killed in the middle: does it end elsewhere?")
    return fig
