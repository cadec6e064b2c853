"""The process in which one way is measured: `python -m course_utils.bench WHAT WAY` prints JSON."""

from __future__ import annotations

import importlib
import json
import sys

if __name__ == "__main__":
    what, way = sys.argv[1:]
    print(json.dumps(importlib.import_module(f"course_utils.bench.{what}").measure(way)))
