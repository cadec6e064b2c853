"""How long a notebook's run took and how much memory it held: docs/results/notebooks.json."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from course_utils import machine
from course_utils.files import write_text

FILE = Path("docs/results/notebooks.json")
EVERY = 0.2  # seconds between two looks at the memory


@dataclass
class Usage:
    """What a run has used: seconds by the clock, and 10^6 bytes of memory at its peak."""

    seconds: float = 0.0
    peak_mb: float = 0.0


@contextlib.contextmanager
def usage() -> Iterator[Usage]:
    """The time of the block, and the most memory that processes started in it held together."""
    used, done, began = Usage(), threading.Event(), time.perf_counter()
    others = set(psutil.Process().children(recursive=True))

    def watch() -> None:
        while not done.wait(EVERY):
            used.peak_mb = max(used.peak_mb, _memory_of_children(others) / 1e6)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield used
    finally:
        done.set()
        watcher.join()
        used.seconds = time.perf_counter() - began


def _memory_of_children(others: set[psutil.Process]) -> int:
    """Bytes that the processes below this one hold, without those named."""
    held = 0
    for process in set(psutil.Process().children(recursive=True)) - others:
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            held += process.memory_info().rss
    return held


def keep(root: Path, name: str, used: Usage) -> Path:
    """The file of results, with this run as the one of its notebook and profile."""
    file = root / FILE
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    results.setdefault(name, {})[machine.profile()] = {
        "seconds": round(used.seconds),
        "peak_mb": round(used.peak_mb, -1),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": str(machine.describe()),
    }
    return write_text(file, json.dumps(results, indent=1, sort_keys=True) + "\n")
