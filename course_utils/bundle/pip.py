"""What is asked of pip: which wheels there are for a platform, and to bring them."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from course_utils.bundle.platforms import Platform
from course_utils.errors import CourseError, OutputError
from course_utils.files import sha256

NO_WHEEL = re.compile(r"No matching distribution found for ([\w.-]+)")
NO_NETWORK = re.compile(
    r"Retrying \(|ConnectionError|ConnectTimeout|SSLError|ProxyError|HTTP error"
)
NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded|not enough space")


@dataclass(frozen=True)
class Wheel:
    """One wheel as the index describes it, before it is brought here."""

    file: str
    sha256: str
    url: str
    name: str
    version: str
    requires: tuple[str, ...] = ()
    requires_python: str = ""

    @property
    def pin(self) -> str:
        """The wheel's name and version as pip reads them."""
        return f"{self.name}=={self.version}"


def find(
    requirements: Sequence[str], platform: Platform, python: str, *, index: str | None = None
) -> tuple[list[Wheel], list[str]]:
    """The wheels that fit the requirements there, and the names for which there is none.

    Nothing is downloaded that the index can tell. Raises `CourseError` when it does not answer.
    """
    wanted, without = list(requirements), []
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        while wanted:
            where = ["--dry-run", "--ignore-installed", "--target", folder, "--report", str(report)]
            done = _pip("install", *where, *_for(platform, python, index), *wanted)
            if done.returncode == 0:
                found = json.loads(report.read_text(encoding="utf-8"))["install"]
                return [_wheel(entry) for entry in found], without
            lacking = NO_WHEEL.search(done.stderr)
            if NO_NETWORK.search(done.stderr) or not lacking:
                raise _trouble("pip could not ask the package index.", done)
            without.append(lacking[1])
            wanted = [line for line in wanted if _name(line) != _name(lacking[1])]
    return [], without


def bring(
    wheels: Iterable[Wheel],
    platform: Platform,
    python: str,
    folder: Path,
    *,
    index: str | None = None,
) -> None:
    """Nothing; the wheels lie in `folder`, checked. Raises `CourseError` naming one that fails.

    pip brings several at once; when one of them fails it is found by bringing one after the other.
    """
    wheels = list(wheels)
    how = ["download", "--dest", str(folder), *_for(platform, python, index)]
    done = _pip(*how, *(wheel.pin for wheel in wheels))
    if done.returncode and NO_SPACE.search(done.stderr):
        raise OutputError(
            "The disk is full.",
            where=folder.parent,
            do="Free some space, here or where temporary files go, and run it again: "
            "what is there stays.",
        )
    if done.returncode and len(wheels) > 1:
        for wheel in wheels:
            bring([wheel], platform, python, folder, index=index)
    elif done.returncode:
        raise _trouble(f"{wheels[0].file} could not be downloaded.", done)
    for wheel in wheels:
        if not is_whole(folder / wheel.file, wheel):
            raise CourseError(
                f"{wheel.file} is not the file that the index announced.",
                do="Run the same command again: what is there already stays.",
            )


def is_whole(file: Path, wheel: Wheel) -> bool:
    """Whether this file is the wheel, byte for byte."""
    return file.is_file() and sha256(file) == wheel.sha256


def sizes(wheels: Sequence[Wheel]) -> list[int]:
    """The bytes of each wheel as its server announces them; 0 where it does not."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(_size, wheels))


def _size(wheel: Wheel) -> int:
    try:
        request = urllib.request.Request(wheel.url, method="HEAD")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.headers["Content-Length"] or 0)
    except (OSError, ValueError):
        return 0


def build(project: Path, folder: Path) -> Path:
    """The wheel of a project of ours, in `folder`. Raises `CourseError` when it is not built."""
    # Without isolation no network is needed; an author's environment often has the builder.
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    done = _pip("wheel", "--no-deps", *isolation, "--wheel-dir", str(folder), str(project))
    if done.returncode:
        raise _trouble("The course's own wheel could not be built.", done)
    return next(folder.glob("*.whl"))


def _for(platform: Platform, python: str, index: str | None) -> list[str]:
    tags = [word for tag in platform.tags for word in ("--platform", tag)]
    how = ["--no-deps", "--only-binary", ":all:", "--python-version", python, *tags]
    return how + (["--index-url", index] if index else [])


def _pip(command: str, *words: str) -> subprocess.CompletedProcess[str]:
    if not importlib.util.find_spec("pip"):
        raise CourseError("This Python has no pip.", do=f"{sys.executable} -m ensurepip")
    call = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "2", command]
    return subprocess.run([*call, "--quiet", *words], capture_output=True, text=True, check=False)


def _wheel(entry: dict) -> Wheel:
    source, about = entry["download_info"], entry["metadata"]
    return Wheel(
        file=unquote(source["url"].rpartition("/")[2]),
        sha256=source["archive_info"]["hashes"]["sha256"],
        url=source["url"],
        name=about["name"],
        version=about["version"],
        requires=tuple(about.get("requires_dist", ())),
        requires_python=about.get("requires_python", ""),
    )


def _name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def _trouble(what: str, done: subprocess.CompletedProcess[str]) -> CourseError:
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    said = (lines or done.stderr.splitlines() or ["nothing"])[-1]
    return CourseError(
        f"{what} pip says: {said[:300]}",
        do="See that this machine reaches the package index, and run the same command again.",
    )
