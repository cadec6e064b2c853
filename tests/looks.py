"""How figures look to eyes that are not the author's: colours, and what differs besides them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# Machado, Oliveira & Fernandes 2009 (doi:10.1109/TVCG.2009.113), severity 1, for linear RGB.
SIGHT = {
    "all three cones": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = np.array(  # sRGB, white D65 (IEC 61966-2-1)
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
WHITE = TO_XYZ.sum(1)
FAR_IN_LIGHTNESS = 25  # of 100: told apart in grey as well


def linear(colour: Any) -> np.ndarray:
    """Red, green, blue of a colour in amounts of light, from 0 to 1."""
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of red, green, blue in amounts of light: equal distances look alike."""
    ratio = TO_XYZ @ light.clip(0, 1) / WHITE
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def difference(one: str, other: str, sight: str) -> float:
    """The distance of two colours (CIE 1976) as eyes of that kind see them; 2 is just noticed."""
    seen = [lab(np.array(SIGHT[sight]) @ linear(colour)) for colour in (one, other)]
    return float(np.linalg.norm(seen[0] - seen[1]))


def contrast_on_white(colour: str) -> float:
    """The contrast of a colour on white, from 1 to 21 (WCAG 2.2)."""
    return float(1.05 / (TO_XYZ[1] @ linear(colour) + 0.05))


def alike_but_for_colour(figure: Figure) -> list[tuple[str, str]]:
    """The pairs of labels in a figure whose artists differ in hue alone.

    Two lines may differ in dash, marker, or whether markers are filled; two bars in their hatch;
    and both in lightness. Artists that have the same look and colour are no pair: they mean the
    same.
    """
    return [pair for axes in figure.axes for pair in _alike(axes)]


def _alike(axes: Axes) -> Iterator[tuple[str, str]]:
    artists, labels = axes.get_legend_handles_labels()
    drawn = [(label, *_look(artist)) for artist, label in zip(artists, labels, strict=True)]
    for (name, look, colour), (other, its_look, its_colour) in combinations(drawn, 2):
        apart = abs(lab(linear(colour))[0] - lab(linear(its_colour))[0])
        if look == its_look and colour != its_colour and apart < FAR_IN_LIGHTNESS:
            yield name, other


def _look(artist: Artist | ErrorbarContainer | BarContainer) -> tuple[tuple[Any, ...], str]:
    """What of an artist is not colour, and its colour."""
    if isinstance(artist, ErrorbarContainer):
        artist = artist[0] or artist[2][0]
    if isinstance(artist, BarContainer):
        artist = artist[0]
    if isinstance(artist, Line2D):
        filled = artist.get_markerfacecolor() not in ("none", "white")
        look = (artist.get_linestyle(), artist.get_marker(), filled)
        return look, to_hex(artist.get_color())
    colours = [c for c in (artist.get_facecolor(), artist.get_edgecolor()) if len(c)]
    return (type(artist).__name__, artist.get_hatch() or ""), to_hex(np.atleast_2d(colours[0])[0])
