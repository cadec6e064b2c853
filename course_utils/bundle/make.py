"""Makes a bundle: what it takes is planned first, then brought, checked and written down.

A bundle becomes whole in one step, when SHA256SUMS is written, and is none before: the installer
refuses it. Each file of it is whole or not there, so a bundle that was stopped goes on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from packaging.utils import canonicalize_name
from tqdm.auto import tqdm

import course_utils
from course_utils.bundle import contents, install, pip
from course_utils.bundle.install import MANIFEST, SUMS, WHEELS
from course_utils.bundle.pip import Wheel
from course_utils.bundle.plan import Pins, is_cuda, least_python, wheels_for
from course_utils.bundle.platforms import Platform, chosen, this_python
from course_utils.distill.lock import RunLock
from course_utils.errors import CourseError, OutputError
from course_utils.files import check_writable, sha256, write_bytes, write_text, writing

ROOT = Path(course_utils.__file__).parents[1]
PLAN, PARTS = ".plan.json", ".parts"
AT_ONCE = (
    12  # wheels that one call of pip brings: a bundle that is stopped loses no more than these
)
BYTECODE = 1.25  # packages and what Python writes beside them, as a share of the packages
Say = Callable[[str], object]


def make(
    out: str | Path,
    *,
    platforms: str | None = None,
    torch_index: str | None = None,
    root: Path = ROOT,
    say: Say = print,
) -> Path:
    """The folder of the bundle, complete, with the sum of every file.

    Raises `CourseError` when `root` is no checkout of the course, for an unknown platform and for a
    wheel that cannot be had; `OutputError` for a folder that holds something else or is being
    written by another process, and for a disk too small. What was brought before stays.
    """
    out, python = Path(out), this_python()
    # A bundle that is renewed stays one for the same machines, unless others are named.
    targets = chosen(platforms or ",".join(_read(out / MANIFEST, "platforms")))
    torch_index = torch_index or _read(out / PLAN).get("torch_index")
    if not (root / "constraints" / "tested.txt").is_file():
        raise CourseError(
            "A bundle is made in a checkout of the course.",
            where=root,
            do="Install the course from its repository, and run `course bundle` there.",
        )
    _check_own(out)
    with RunLock(out):
        plan = dict(_planned(out, targets, python, torch_index, root, say))
        files = _files_that_fit(out, plan, root, say)
        (out / SUMS).unlink(missing_ok=True)
        for target in targets:
            _bring(out, plan[target.name], target, python, torch_index)
        course = _course_wheel(out, root)
        _copy(out, files, contents.scripts(python, list(plan)))
        _write_manifest(out, plan, course, python, sum(f.stat().st_size for f in files.values()))
        names = {MANIFEST, *files, *contents.scripts(python, list(plan))}
        names |= {f"{WHEELS}/{wheel.file}" for wheels in plan.values() for wheel in wheels}
        names.add(f"{WHEELS}/{course.name}")
        _remove_others(out, names)
        lines = (f"{sha256(out / name)}  {name}\n" for name in sorted(names))
        write_text(out / SUMS, "".join(lines))
    size = sum((out / name).stat().st_size for name in names)
    say(f"{out}: {len(names)} files, {size / 1e9:.2f} GB, for {', '.join(plan)}, Python {python}")
    say(f"On a machine without a network: sh {out / 'install.sh'}; see {out / 'README.txt'}")
    return out


def check(folder: Path, *, say: Say = print) -> None:
    """Nothing; raises `CourseError` that names every file missing or damaged in the bundle."""
    try:
        _, sums = install.read_bundle(folder)
    except install.Refusal as refusal:
        raise CourseError(str(refusal)) from None
    if wrong := install.damage(folder, sums):
        raise CourseError(
            f"{len(wrong)} of {len(sums)} files are not as they were made: {', '.join(wrong)}.",
            where=folder,
            do="Run `course bundle` again for this folder: it brings only these.",
        )
    say(f"All {len(sums)} files of {folder} are as they were made.")


def _check_own(out: Path) -> None:
    """Raises `OutputError` unless the folder is new, empty or a bundle of ours."""
    ours = (out / PLAN).is_file() or (out / MANIFEST).is_file()
    # Systems put hidden files of their own onto a stick; a run that was killed leaves its lock.
    empty = out.is_dir() and all(path.name.startswith(".") for path in out.iterdir())
    if out.exists() and not (ours or empty):
        raise OutputError(
            "This is not empty and no bundle of the course.",
            where=out,
            do="Choose a new folder with --out.",
        )
    check_writable(out)


def _planned(
    out: Path,
    targets: list[Platform],
    python: str,
    torch_index: str | None,
    root: Path,
    say: Say,
) -> Iterable[tuple[str, list[Wheel]]]:
    """Each platform's name and its wheels; asked of the index once, then kept beside the bundle."""
    pins = Pins.of(root)
    key = hashlib.sha256(json.dumps([asdict(pins), python, torch_index]).encode()).hexdigest()
    held = _read(out / PLAN)
    known = _read(out / PLAN, "platforms") if held.get("key") == key else {}
    for target in targets:
        if target.name not in known:
            say(f"{target.name}: asking which wheels there are")
            wheels = wheels_for(target, pins, python, torch_index=torch_index, say=say)
            known[target.name] = [asdict(wheel) for wheel in wheels]
            now = {"key": key, "torch_index": torch_index, "platforms": known}
            write_text(out / PLAN, json.dumps(held | now))
        wheels = [Wheel(**wheel) for wheel in known[target.name]]
        if is_cuda(wheels):
            say(
                f"{target.name}: this PyTorch is the build for NVIDIA cards, several gigabytes. "
                "For machines without one, name the index of the CPU build with --torch-index."
            )
        yield target.name, wheels


def _bring(
    out: Path, wheels: list[Wheel], target: Platform, python: str, torch_index: str | None
) -> None:
    """The wheels of one platform that are missing come into the bundle, some at a time."""
    check_writable(out / WHEELS)
    bar = tqdm(desc=target.name, total=len(wheels), unit="wheel")
    lacking = [w for w in wheels if not pip.is_whole(out / WHEELS / w.file, w)]
    with bar:
        bar.update(len(wheels) - len(lacking))
        torch = [w for w in lacking if canonicalize_name(w.name) == "torch"]
        others = [w for w in lacking if w not in torch]
        calls = [([wheel], torch_index) for wheel in torch]
        for start in range(0, len(others), AT_ONCE):
            calls.append((others[start : start + AT_ONCE], None))
        for some, index in calls:
            bar.set_postfix_str(", ".join(wheel.name for wheel in some)[:40])
            with writing(out), tempfile.TemporaryDirectory(prefix=PARTS, dir=out) as parts:
                pip.bring(some, target, python, Path(parts), index=index)
                for wheel in some:
                    Path(parts, wheel.file).replace(out / WHEELS / wheel.file)
            bar.update(len(some))


def _course_wheel(out: Path, root: Path) -> Path:
    """The course's own wheel in the bundle, built again when its sources have changed."""
    held, key = _read(out / PLAN), contents.key_of_sources(root)
    known = _read(out / PLAN, "course")
    file = out / WHEELS / known.get("file", "")
    if known.get("sources") == key and file.is_file() and sha256(file) == known["sha256"]:
        return file
    with writing(out), tempfile.TemporaryDirectory(prefix=PARTS, dir=out) as parts:
        built = pip.build(root, Path(parts))
        file = built.replace(out / WHEELS / built.name)
    course = {"sources": key, "file": file.name, "sha256": sha256(file)}
    write_text(out / PLAN, json.dumps(held | {"course": course}))
    return file


def _write_manifest(
    out: Path, plan: dict[str, list[Wheel]], course: Path, python: str, other_bytes: int
) -> None:
    """bundle.json: what the installer must know before it touches anything."""
    name, version, *_ = course.name.split("-")
    platforms = {}
    for platform, wheels in plan.items():
        names = [*(wheel.file for wheel in wheels), course.name]
        platforms[platform] = {
            "wheels": names,
            "pins": [*(wheel.pin for wheel in wheels), f"{name}=={version}"],
            "wheel_bytes": sum((out / WHEELS / n).stat().st_size for n in names),
            "unpacked_bytes": int(BYTECODE * sum(_unpacked(out / WHEELS / n) for n in names)),
        }
    every = [wheel for wheels in plan.values() for wheel in wheels]
    manifest = {
        "course": version,
        "python": ".".join(python.split(".")[:2]),
        "python_least": least_python(every, python),
        "built_with": python,
        "pip": next(wheel.file for wheel in every if wheel.name == "pip"),
        "other_bytes": other_bytes,
        "platforms": platforms,
    }
    write_text(out / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def _unpacked(wheel: Path) -> int:
    with zipfile.ZipFile(wheel) as archive:
        return sum(member.file_size for member in archive.infolist())


def _files_that_fit(
    out: Path, plan: dict[str, list[Wheel]], root: Path, say: Say
) -> dict[str, Path]:
    """All files that are no wheels, by their place; `OutputError` if the disk is too small."""
    wheels = {wheel.file: wheel for each in plan.values() for wheel in each}
    lacking = [w for w in wheels.values() if not pip.is_whole(out / WHEELS / w.file, w)]
    say(f"{len(wheels)} wheels, {len(wheels) - len(lacking)} of them there already")
    wanted = sum(pip.sizes(lacking))
    _check_space(out, wanted)  # before the caches are filled, which may take minutes
    files = contents.of_checkout(root, say) | contents.of_cache(plan, say)
    _check_space(out, wanted + sum(_lacking_bytes(out, files)))
    return files


def _copy(out: Path, files: dict[str, Path], texts: dict[str, str]) -> None:
    """The files and the texts come into the bundle; what is there already is not written."""
    for name, source in tqdm(files.items(), desc="other files", unit="file"):
        if not (out / name).is_file() or sha256(out / name) != sha256(source):
            write_bytes(out / name, source.read_bytes())
    for name, text in texts.items():
        write_bytes(out / name, text.encode())


def _check_space(out: Path, wanted: int) -> None:
    free = shutil.disk_usage(out).free
    if free < wanted:
        raise OutputError(
            f"The bundle needs {wanted / 1e9:.2f} GB more here and {free / 1e9:.2f} GB are free: "
            f"{(wanted - free) / 1e9:.2f} GB are missing.",
            where=out,
            do="Free some space, name fewer --platforms, or choose a larger disk. "
            "What is there already stays.",
        )


def _lacking_bytes(out: Path, files: dict[str, Path]) -> Iterable[int]:
    for name, source in files.items():
        size = source.stat().st_size
        if not (out / name).is_file() or (out / name).stat().st_size != size:
            yield size


def _remove_others(out: Path, said: set[str]) -> None:
    """Files of an earlier bundle in this folder that this one has no use for."""
    for folder in (WHEELS, install.COURSE, install.CACHE):
        for file in sorted((out / folder).rglob("*")):
            if file.is_file() and file.relative_to(out).as_posix() not in said:
                file.unlink()


def _read(file: Path, *keys: str) -> dict:
    """What the file holds at these keys; nothing, when it is not there or is not one of ours."""
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        for key in keys:
            held = held[key]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}
