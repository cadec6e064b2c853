"""What a bundle holds besides wheels: notebooks, texts, caches, slides, and how to install."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from packaging.utils import canonicalize_name

from course_utils.bundle import install
from course_utils.bundle.install import CACHE, COURSE
from course_utils.bundle.pip import Wheel
from course_utils.machine import cache_dir

FOR_LEARNERS = ("notebooks/*.ipynb", "data/**/*", "docs/**/*", "configs/*", "slides/*.md")
FOR_LEARNERS += ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE")  # pages link to them
SOURCES = ("course_utils/**/*", "data/**/*", "pyproject.toml", "README.md", "LICENSE")
README = (
    "Shrinking BERT, for Python {python} on {platforms}, with all it needs: no internet.\n"
    "On a machine: `sh install.sh` (Linux, macOS) or `install.bat` (Windows) in this folder; the "
    "course is then in ~/shrinking-bert, or in the folder that you name after the command.\n"
    "For a room: `python3 -m http.server 8000` in this folder; on each machine, with the address "
    "of this one: `curl -O http://ADDRESS:8000/install.py`, then `python3 install.py --from "
    "http://ADDRESS:8000`; on Windows `curl.exe -O http://ADDRESS:8000/install.py`, then "
    "`py -{python} install.py --from http://ADDRESS:8000`.\n"
)


def of_checkout(root: Path, say: Callable[[str], object]) -> dict[str, Path]:
    """The files for learners, by their place in the bundle; whether there are slides is said."""
    files = _files(root, FOR_LEARNERS)
    slides = _files(root / "build", ("slides/**/*",))
    if not slides:
        say(
            "There are no slides in build/slides, so the bundle has none. `make slides` makes them."
        )
    return {f"{COURSE}/{name}": file for name, file in (files | slides).items()}


def of_cache(plan: dict[str, list[Wheel]], say: Callable[[str], object]) -> dict[str, Path]:
    """What notebooks build once, by its place in the bundle; this machine's cache is filled first.

    It is left out, and that is said, where it would be built again on the other machines: their
    packages' texts are others than those of this machine's.
    """
    from course_utils.data import pydocs
    from course_utils.fetch import fetch

    here = {canonicalize_name(name): version for name, version in pydocs.versions().items()}
    here.pop("stdlib")
    there = (wheel for wheels in plan.values() for wheel in wheels)
    differ = sorted(
        f"{wheel.name} {here[name]} here, {wheel.version} there"
        for wheel in there
        if (name := canonicalize_name(wheel.name)) in here
        and here[name] != wheel.version.partition("+")[0]
    )
    if differ:
        say(f"Without caches, which each machine then builds: {'; '.join(differ)}")
        return {}
    files = {}
    for part in fetch(say=say):
        for file in [part] if part.is_file() else sorted(part.rglob("*")):
            if file.is_file():
                files[f"{CACHE}/{file.relative_to(cache_dir()).as_posix()}"] = file
    return files


def scripts(python: str, platforms: list[str]) -> dict[str, str]:
    """The text of the installer's files and of README.txt, by name."""
    series = ".".join(python.split(".")[:2])
    room = Path(install.__file__).parent
    texts = {
        name: (room / name).read_text(encoding="utf-8").replace("@PYTHON@", series)
        for name in ("install.py", "install.sh", "install.bat")
    }
    texts["install.bat"] = texts["install.bat"].replace("\n", "\r\n")
    return texts | {"README.txt": README.format(python=series, platforms=", ".join(platforms))}


def key_of_sources(root: Path) -> str:
    """A hash of what the course's own wheel is built from."""
    digest = hashlib.sha256()
    for name, file in _files(root, SOURCES).items():
        digest.update(f"{name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _files(root: Path, patterns: tuple[str, ...]) -> dict[str, Path]:
    """The files that match, by their path below `root`; nothing hidden, nothing compiled."""
    found = {file.relative_to(root): file for pattern in patterns for file in root.glob(pattern)}
    return {
        name.as_posix(): file
        for name, file in sorted(found.items())
        if file.is_file() and not any(p.startswith((".", "__pycache__")) for p in name.parts)
    }
