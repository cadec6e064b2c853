"""The true thing: a bundle of this checkout, and a machine without any network made of it.

    python tools/test_bundle.py [FOLDER]     Linux; as root, or where `unshare -rn` is allowed

In a network namespace without routes, with a home of its own: install, doctor, a run of the
pipeline, the caches seen to be good, notebook 00 from the bundle's copy. FOLDER (build/bundle-test)
keeps the bundle, so that a second test brings nothing; the machine is made anew each time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from course_utils.bundle import make
from course_utils.errors import CourseError

NETWORK = "import socket; socket.create_connection(('192.0.2.1', 80), 5)"
# A new namespace's loopback is down, but every machine has one, and notebooks talk over it.
WITH_LOOPBACK = """
import fcntl, os, socket, struct, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
os.execvp(sys.argv[1], sys.argv[1:])
"""


def main(place: Path) -> None:
    bundle, home = place / "bundle", place / "home"
    torch_index = os.environ.get("TORCH_INDEX") or None
    started = time.monotonic()
    make.make(bundle, torch_index=torch_index)
    make.check(bundle)
    told(f"bundle, {_megabytes(bundle)} MB", started)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)

    alone("no network", home, [sys.executable, "-c", NETWORK], fails=True)
    course = home / "shrinking-bert"
    alone("install, doctor", home, ["sh", str(bundle / "install.sh")])
    told(f"  the course has {_megabytes(course)} MB")
    alone("install again", home, ["sh", str(bundle / "install.sh")])
    tool = str(course / ".venv" / "bin" / "course")
    alone("fetch: nothing to do", home, [tool, "fetch"])
    alone("run, profile cpu", home, [tool, "run", "--data", "probes"])
    nbconvert = [str(course / ".venv" / "bin" / "jupyter"), "nbconvert", "--to", "notebook"]
    nbconvert.append("--ExecutePreprocessor.startup_timeout=300")
    notebook = [*nbconvert, "--execute", "--inplace", "notebooks/00_start_here.ipynb"]
    alone("notebook 00, profile smoke", home, notebook, COURSE_PROFILE="smoke")
    report = json.loads((course / "build" / "report" / "results.json").read_text(encoding="utf-8"))
    if not report["rows"]:
        raise CourseError("The run has no rows.", where=course)
    told("a machine without a network is ready and works", started)


def alone(
    name: str, home: Path, command: list[str], *, fails: bool = False, **environment: str
) -> None:
    """Nothing; the command was run with no route to anywhere. Raises `CourseError` if it failed."""
    settings = {"HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.defpath}"}
    settings |= {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"} | environment
    settings |= {k: v for k, v in os.environ.items() if k == "OMP_NUM_THREADS"}
    folder = home / "shrinking-bert"
    unshare = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    started = time.monotonic()
    done = subprocess.run(
        [*unshare, "--", sys.executable, "-c", WITH_LOOPBACK, *command],
        env=settings,
        cwd=folder if folder.exists() else home,
        capture_output=True,
        text=True,
        check=False,
    )
    if (done.returncode != 0) != fails:
        raise CourseError(f"{name}: it ended with {done.returncode}.\n{done.stdout}{done.stderr}")
    told(name, started)


def told(what: str, started: float | None = None) -> None:
    seconds = f"{time.monotonic() - started:6.0f} s  " if started is not None else " " * 10
    print(f"{seconds}{what}", flush=True)


def _megabytes(folder: Path) -> int:
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file()) // 10**6


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if sys.argv[1:] else "build/bundle-test").absolute())
    except (CourseError, OSError) as error:
        sys.exit(str(error))
