"""The runs of the lab that the course was written with, to lay one's own beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from course_utils.errors import DataError

FOLDER = Path(__file__).parent / "references"


def reference(name: str = "pydocs") -> dict[str, Any]:
    """The results.json of `course run --lab --data NAME`, with its machine, versions and rows.

    Raises `DataError` for a set that the course was not measured on.
    """
    known = sorted(path.stem for path in FOLDER.glob("*.json"))
    if name not in known:
        raise DataError(f"There is no reference run of {name!r}.", do=f"Take {' or '.join(known)}.")
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
