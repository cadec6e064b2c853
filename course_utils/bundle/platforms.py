"""The kinds of machines a bundle can be made for: their wheels' tags, and how they see markers."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass

from course_utils.bundle.install import this_platform
from course_utils.errors import CourseError

# torch and others are built for glibc 2.28 (2018) and newer; pip wants each older tag by its name.
_GLIBC = ("2_28", "2_27", "2_26", "2_24", "2_17", "2_12", "2_5")
_LEGACY = ("manylinux2014", "manylinux2010", "manylinux1", "linux")


@dataclass(frozen=True)
class Platform:
    """One kind of machine: `tags` for pip, and what the markers of requirements ask about it."""

    name: str
    tags: tuple[str, ...]
    system: str  # as platform.system() calls it there
    sys_platform: str
    machine: str

    def environment(self, python: str) -> dict[str, str]:
        """What a marker sees on such a machine under CPython `python`, such as "3.11.7"."""
        return {
            "platform_system": self.system,
            "sys_platform": self.sys_platform,
            "platform_machine": self.machine,
            "os_name": "nt" if self.system == "Windows" else "posix",
            "python_version": ".".join(python.split(".")[:2]),
            "python_full_version": python,
            "implementation_name": "cpython",
            "implementation_version": python,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_version": "",
        }


def _linux(machine: str) -> Platform:
    tags = (*(f"manylinux_{version}" for version in _GLIBC), *_LEGACY)
    tags = tuple(f"{tag}_{machine}" for tag in tags)
    return Platform(f"linux-{machine}", tags, "Linux", "linux", machine)


PLATFORMS = {
    each.name: each
    for each in (
        _linux("x86_64"),
        _linux("aarch64"),
        Platform("macos-arm64", ("macosx_14_0_arm64",), "Darwin", "darwin", "arm64"),
        Platform("windows-x86_64", ("win_amd64",), "Windows", "win32", "AMD64"),
    )
}


def chosen(names: str) -> list[Platform]:
    """The platforms of "linux-x86_64,macos-arm64", each once; none named is this machine's own.

    Raises `CourseError` for one that no bundle can be made for.
    """
    wanted = [name.strip() for name in (names or this_platform()).split(",") if name.strip()]
    for name in wanted or [names]:  # a comma alone names none
        if name not in PLATFORMS:
            raise CourseError(
                f"No bundle can be made for {name!r}.",
                do=f"Name some of {', '.join(PLATFORMS)}, with commas between them.",
            )
    return [PLATFORMS[name] for name in dict.fromkeys(wanted)]


def this_python() -> str:
    """The version of this Python, which is the bundle's; `CourseError` if it is not CPython."""
    if platform.python_implementation() != "CPython":
        raise CourseError("A bundle is made with CPython.", do="Run this with another Python.")
    return "{}.{}.{}".format(*sys.version_info)
