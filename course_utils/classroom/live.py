"""Widgets in a page that may be read where no kernel runs, or where ipywidgets is missing."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

try:
    import ipywidgets
except ImportError:
    from course_utils.classroom import still as ipywidgets

__all__ = ["Live", "Picture", "ipywidgets"]


class Live(ipywidgets.VBox):
    """A box of widgets; where no kernel runs and only its text is left, it says what it is."""

    def __init__(self, what: str, children: Sequence[ipywidgets.Widget]):
        super().__init__(children)
        self._what = what

    def __repr__(self) -> str:
        return f"({self._what})"


class Picture(ipywidgets.HTML):
    """A figure that changes, with alternative text: `ipywidgets.Image` has no place for words."""

    def show(self, png: bytes, *, alt: str, width: int = 768) -> None:
        """Nothing; from now on the picture is this PNG, and `alt` says what it shows."""
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        look = f'width="{width}" style="max-width:100%"'
        self.value = f'<img alt="{html.escape(alt)}" {look} src="{source}">'
