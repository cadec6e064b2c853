"""One way to put something under a cell, and its plain text where there is no notebook."""

from __future__ import annotations

from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display


def put(bundle: dict[str, str], metadata: dict[str, Any] | None = None) -> None:
    """Nothing; displays a MIME bundle, or prints its "text/plain" outside of IPython."""
    if InteractiveShell.initialized():
        display(bundle, raw=True, metadata=metadata)
    elif "text/plain" in bundle:
        print(bundle["text/plain"])
