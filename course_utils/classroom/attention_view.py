"""Who looks at whom: a figure of attention weights, and sliders for layer, head and token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from course_utils.classroom.live import Live, Picture, ipywidgets
from course_utils.classroom.plots import COLOURS, STYLE, png
from course_utils.errors import CourseError, DataError

WHITE_TO_BLUE = LinearSegmentedColormap.from_list("attention", ["white", COLOURS["blue"]])
MOST_WRITTEN = 8  # up to this many tokens, each cell of the map shows its number
FAINTEST = 0.02  # a lesser weight is not drawn as a line


def attention_figure(
    weights: Any, tokens: Sequence[str], *, layer: int = 0, head: int = 0, token: int | None = None
) -> Figure:
    """A figure of one head: a map of all weights beside lines from each token to those it looks at.

    `weights` is (A, S, S), or (L, A, S, S), or a list with one (A, S, S) per layer; its rows look,
    its columns are looked at. `token` is the row to set off; None sets off none. Layers, heads and
    tokens are counted from 0. Raises `DataError` when the weights have another shape or the tokens
    another number, `CourseError` when there is no such layer, head or token.
    """
    maps = _maps(weights, tokens)
    for name, number, count in (
        ("layer", layer, maps.shape[0]),
        ("head", head, maps.shape[1]),
        ("token", token or 0, len(tokens)),
    ):
        if number not in range(count):
            raise CourseError(
                f"There is no {name} {number}.", do=f"Choose a {name} from 0 to {count - 1}."
            )
    size = len(tokens)
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, float(np.clip(0.9 + 0.3 * size, 3.6, 6))))
        left, right = fig.subplots(1, 2, width_ratios=(1.5, 1), sharey=True)
        image = attention_map(left, maps[layer, head], tokens, token=token)
        fig.colorbar(image, ax=left, label="attention weight")
        _lines(right, maps[layer, head], tokens, token)
        who = "each token" if token is None else f"token {token}, “{tokens[token]}”,"
        title = f"Where does {who} look? Layer {layer}, head {head}"
        fig.suptitle(title, x=0.01, ha="left", fontsize=13, parse_math=False)
    return fig


def attention_map(
    axes: Axes, weights: Any, tokens: Sequence[str], *, token: int | None = None
) -> AxesImage:
    """The image of weights (S, S), drawn into `axes` from white (0) to blue (1).

    Rows look, columns are looked at; `token` is the row to set off. For up to eight tokens, each
    cell holds its number.
    """
    weights, size = _array(weights), len(tokens)
    image = axes.imshow(weights, cmap=WHITE_TO_BLUE, vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(size), tokens, rotation=90, fontsize=_points(size), parse_math=False)
    axes.set_yticks(range(size), tokens, fontsize=_points(size), parse_math=False)
    axes.set(xlabel="is looked at", ylabel="looks")
    axes.grid(False)
    if size <= MOST_WRITTEN:
        for row, column in np.ndindex(size, size):
            weight = weights[row, column]
            colour = "white" if weight > 0.6 else "black"
            axes.text(column, row, f"{weight:.2f}", ha="center", va="center", color=colour, size=9)
    if token is not None:
        edge = Rectangle((-0.5, token - 0.5), size, 1, fill=False, clip_on=False, linewidth=2)
        edge.set_edgecolor(COLOURS["vermillion"])
        axes.add_patch(edge)
    return image


def attention_grid(
    question: str, maps: Mapping[str, Any], tokens: Sequence[str], *, columns: int
) -> Figure:
    """A figure of several maps (S, S) by title, in rows of `columns`, titled with the question."""
    rows = -(-len(maps) // columns)
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(8, 1 + rows * 5.8 / columns))
        grid = fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, (title, weights) in zip(grid.flat, maps.items(), strict=False):
            attention_map(axes, weights, tokens)
            axes.label_outer()
            axes.set_title(title, fontsize=11)
        for axes in grid.flat[len(maps) :]:
            axes.set_axis_off()
        fig.suptitle(question, x=0.01, ha="left", fontsize=13)
    return fig


def attention_viewer(
    weights: Any, tokens: Sequence[str], *, layer: int = 0, head: int = 0, token: int = 0
) -> None:
    """Nothing; shows `attention_figure` with sliders for the layer, the head and the token.

    The arguments are those of `attention_figure`, the numbers are where the sliders start.
    """
    maps = _maps(weights, tokens)
    start = {"layer": layer, "head": head, "token": token}
    picture = Picture()
    sliders = {
        name: ipywidgets.IntSlider(
            value=value,
            min=0,
            max=count - 1,
            description=name,
            continuous_update=False,
            layout=ipywidgets.Layout(width="60%"),
        )
        for (name, value), count in zip(start.items(), maps.shape, strict=False)
    }

    def draw(_: object = None) -> None:
        now = {name: slider.value for name, slider in sliders.items()}
        picture.show(png(attention_figure(maps, tokens, **now)), alt=_words(maps, tokens, **now))

    for slider in sliders.values():
        slider.observe(draw, names="value")
    draw()
    display(
        Live(
            "Sliders for layer, head and token. They need a running kernel.",
            [*sliders.values(), picture],
        )
    )


def _words(maps: np.ndarray, tokens: Sequence[str], layer: int, head: int, token: int) -> str:
    """What the figure shows of one token, for those who cannot see it."""
    row = maps[layer, head, token]
    most = int(row.argmax())
    return (
        f"Attention weights of layer {layer}, head {head}. Token {token}, “{tokens[token]}”, looks "
        f"most at token {most}, “{tokens[most]}”, with weight {row[most]:.2f}."
    )


def _maps(weights: Any, tokens: Sequence[str]) -> np.ndarray:
    """The weights as one array (L, A, S, S); raises `DataError` in words when they are not."""
    each = [_array(layer) for layer in weights] if isinstance(weights, (list, tuple)) else None
    if each is not None and len({layer.shape for layer in each}) > 1:
        raise DataError(
            f"The layers have weights of several shapes: {sorted({a.shape for a in each})}.",
            do="Give one array (heads, tokens, tokens) per layer, all of one shape.",
        )
    maps = _array(weights) if each is None else np.stack(each)
    maps = maps[None] if maps.ndim == 3 else maps
    size = len(tokens)
    if maps.ndim != 4 or 0 in maps.shape or maps.shape[2:] != (size, size):
        raise DataError(
            f"Attention weights of shape {maps.shape} do not fit {size} tokens.",
            do=f"Give those of one text: (heads, {size}, {size}), or (layers, heads, {size}, "
            f"{size}). Of a batch, take one text first: weights[0], or [w[0] for w in weights].",
        )
    return maps


def _array(weights: Any) -> np.ndarray:
    """A tensor, on whatever device and with whatever gradient, or anything else, as an array."""
    return (
        weights.detach().cpu().float().numpy()
        if hasattr(weights, "detach")
        else np.asarray(weights)
    )


def _lines(axes: Axes, weights: np.ndarray, tokens: Sequence[str], token: int | None) -> None:
    """Tokens that look on the left, tokens looked at on the right, and a line for each weight."""
    size = len(tokens)
    axes.set_xlim(0, 1)
    axes.set_axis_off()
    for row, column in np.ndindex(size, size):
        chosen = token in (None, row)
        weight = float(weights[row, column])
        if weight >= FAINTEST:
            axes.plot(
                [0.25, 0.75],
                [row, column],
                color=COLOURS["vermillion"] if row == token else COLOURS["blue"],
                alpha=0.2 + 0.8 * weight if row == token else weight * (1 if chosen else 0.15),
                linewidth=0.5 + 4 * weight,
                solid_capstyle="round",
                zorder=2 if chosen else 1,
            )
    for place, side in ((0.22, "right"), (0.78, "left")):
        for k, name in enumerate(tokens):
            weight = "bold" if k == token and side == "right" else "normal"
            look = {"ha": side, "va": "center", "fontsize": _points(size), "fontweight": weight}
            axes.text(place, k, name, parse_math=False, **look)


def _points(size: int) -> float:
    """The size of the letters at which this many tokens fit along an axis."""
    return float(np.clip(150 / size, 4.5, 10))
