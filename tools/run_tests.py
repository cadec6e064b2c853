"""The README's test command: one closing line of counts, and an exit code.

    python tools/run_tests.py

First the unit tests, side by side on the machine's cores. Then, alone, because they measure how
long things take: every notebook, compared cell by cell, and what drives a browser.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / "build" / "tests"
NBVAL = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout", "600"]
SIDE_BY_SIDE = ["-n", "auto", "--maxprocesses", "4", "--dist", "loadfile"]
PARTS = {
    "units": ["tests", "-m", "not browser", *SIDE_BY_SIDE],
    "notebooks": ["notebooks", "tests/browser", *NBVAL],
}


def run(name: str, arguments: list[str]) -> tuple[int, Counter[str]]:
    """The exit code of pytest for this part, and how many tests passed, failed or were skipped."""
    report = REPORTS / f"{name}.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", *arguments, f"--junitxml={report}"]
    # Workers that take a core each must not take all of them for every sum.
    threads = {"OMP_NUM_THREADS": "1"} if "-n" in arguments else {}
    code = subprocess.run(command, cwd=ROOT, env=os.environ | threads).returncode
    return code, counts(report) if report.exists() else Counter()


def counts(report: Path) -> Counter[str]:
    """How many tests of a JUnit report passed, failed, could not be run, or were skipped."""
    found: Counter[str] = Counter()
    for suite in ElementTree.parse(report).iter("testsuite"):
        said = {what: int(suite.get(what, 0)) for what in ("failures", "errors", "skipped")}
        found += Counter(failed=said["failures"], errors=said["errors"], skipped=said["skipped"])
        found["passed"] += int(suite.get("tests", 0)) - sum(said.values())
    return found


def main() -> int:
    """The exit code: that of the first part that has one."""
    began = time.monotonic()
    REPORTS.mkdir(parents=True, exist_ok=True)
    codes, found = zip(*(run(name, arguments) for name, arguments in PARTS.items()), strict=True)
    total = sum(found, Counter())
    words = ", ".join(f"{total[what]} {what}" for what in ("passed", "failed", "errors", "skipped"))
    print(f"All tests: {words}, in {(time.monotonic() - began) / 60:.0f} minutes.")
    return next((code for code in codes if code), 0)


if __name__ == "__main__":
    sys.exit(main())
