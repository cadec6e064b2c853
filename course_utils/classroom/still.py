"""What stands in for ipywidgets where it is missing: widgets that hold a value and cannot move.

Each has the name it has there. A box of them shows what would be under its controls, once.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from typing import Any

from IPython.display import display


class Widget:
    """Something with a value, the one it is given or the first of its options."""

    def __init__(
        self, children: Sequence[Widget] = (), *, value: Any = "", options: Sequence = (), **_: Any
    ):
        self.children = tuple(children)
        first = next(iter(options), value)
        self.value = first[1] if isinstance(first, tuple) else first  # (what is shown, value)

    def observe(self, handler: Callable, names: str | None = None) -> None:
        """Nothing, for nothing will ever move."""


class HTML(Widget):
    """A piece of a page; as text, what is written in it and the words of its pictures."""

    def _repr_html_(self) -> str:
        return self.value

    def __repr__(self) -> str:
        words = re.sub(r'<img alt="([^"]*)"[^>]*>', r"\1", self.value)
        return html.unescape(re.sub(r"<[^>]*>", " ", words)).strip()


class VBox(Widget):
    """A box; displayed, it says in one line what is missing and shows its pieces of a page."""

    def _ipython_display_(self) -> None:
        print(repr(self).replace("a running kernel", "ipywidgets, which is not installed here"))
        for child in self.children:
            if isinstance(child, HTML) and child.value:
                display(child)


def __getattr__(name: str) -> type[Widget]:
    """Every other widget: a slider and a menu differ only in how they move."""
    if name.startswith("_"):
        raise AttributeError(name)
    return Widget
