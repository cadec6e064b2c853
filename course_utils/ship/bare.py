"""Where a shipped model runs with what it needs and nothing else, made of what is installed here.

Python is started without its site-packages and sees one folder: that holds the named packages and
the course. What it runs there would run on a machine on which pip installed no more than these.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import Distribution, PackageNotFoundError, PackagePath, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import course_utils
from course_utils.errors import ModelError
from course_utils.files import new_folder, refuse_loss


def needed(names: Sequence[str]) -> list[str]:
    """All distributions that pip would install for these, themselves included, by their names.

    What is followed are the requirements that the installed versions state, for this Python and
    this system, without extras. Raises `ModelError` for one that is not installed.
    """
    found: set[str] = set()
    to_do = [canonicalize_name(name) for name in names]
    while to_do:
        name = to_do.pop()
        if name not in found:
            found.add(name)
            to_do += _requirements(_installed(name))
    return sorted(found)


def disk_mb(names: Sequence[str]) -> float:
    """10^6 bytes of all files of these distributions, as installed, without compiled copies.

    Raises `ModelError` for one that is not installed, or does not say which files are its own.
    """
    files = [file.locate() for name in names for file in _files(name)]
    return sum(Path(file).stat().st_size for file in files if Path(file).is_file()) / 1e6


def bare_python(folder: str | Path, names: Sequence[str]) -> Path:
    """The folder, made anew with exactly these distributions and the course: links, not copies.

    Where the system allows no links they are copies. What they need is not added: `needed` says
    it. Raises `ModelError` as `disk_mb` does, `OutputError` where nothing can be written, and for a
    folder that something else is in.
    """
    wanted = {course_utils.__name__: Path(course_utils.__file__).parent}
    for name in names:
        for part in _parts(_files(name)):
            wanted[part] = Path(distribution(name).locate_file(part))
    folder = Path(folder)
    refuse_loss(folder, lambda _: (folder / course_utils.__name__).exists(), keep=wanted.values())
    with new_folder(folder) as work:
        for part, source in wanted.items():
            _link(source, work / part)
    return folder


def run_bare(folder: str | Path, code: str) -> str:
    """What `code` prints in a new Python that sees its standard library and this folder alone.

    Raises `ModelError` with the last line of its words when it fails.
    """
    start = f"import sys; sys.path.append({str(Path(folder).resolve())!r})\n"
    # -I: no variables, no user's packages, no working directory; -S: no site-packages
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "utf8", "-c", start + code],
        capture_output=True,
        encoding="utf-8",
    )
    if done.returncode:
        raise ModelError(
            f"In the bare environment it fails: {(done.stderr.splitlines() or ['killed'])[-1]}",
            where=folder,
            do="If a package is missing, name it to `needed` and fill the folder again.",
        )
    return done.stdout


def _requirements(installed: Distribution) -> list[str]:
    """The names of what a distribution itself needs, here and without extras."""
    stated = map(Requirement, installed.requires or ())
    return [
        canonicalize_name(one.name)
        for one in stated
        if one.marker is None or one.marker.evaluate({"extra": ""})
    ]


def _installed(name: str) -> Distribution:
    try:
        return distribution(name)
    except PackageNotFoundError as error:
        raise ModelError(f"{name} is not installed.", do=f"pip install {name}") from error


def _files(name: str) -> list[PackagePath]:
    """The files of a distribution, without those that Python compiled."""
    if (files := _installed(name).files) is None:
        raise ModelError(
            f"{name} does not say which files are its own.", do=f"pip install --force {name}"
        )
    return [file for file in files if "__pycache__" not in file.parts]


def _parts(files: Sequence[PackagePath]) -> set[str]:
    """What to link: top-level packages and modules.

    Of a top-level folder that is no package, and that distributions may share, what is inside. What
    lies outside, as scripts do, is left out.
    """
    packages = {file.parts[0] for file in files if file.parts[1:] == ("__init__.py",)}
    return {
        "/".join(file.parts[: 1 if file.parts[0] in packages else 2])
        for file in files
        if file.parts[0] not in ("..", "/")
    }


def _link(source: Path, target: Path) -> None:
    """Nothing; `target` is a link to `source`, or a copy of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.symlink(source, target, target_is_directory=source.is_dir())
    except OSError:  # Windows allows links to some users only
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
