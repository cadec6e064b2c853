"""Runs every notebook, in the smoke profile, among the packages of past and present Colabs.

    python tools/test_colab.py                        colab-2026.08 and colab-2026.07
    python tools/test_colab.py colab-2026.08 --only 03   one set, one notebook
    python tools/test_colab.py --table                nothing run, the README's table anew

For each set of constraints an environment in build/colab is made of it. torch is that of this
Python: Colab's build is made for Colab. Each notebook runs with a stand-in for google.colab, when
its first cell installs the course from an archive of this working tree, and without one. What
happened goes to docs/results/colab.json, notebook by notebook, and from there into the README.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import nbformat
from badges import BRANCH
from blocks import with_block
from build_notebooks import select
from notebook_source import read_source

from course_utils.colab import pins
from course_utils.errors import CourseError
from course_utils.files import write_text

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "build" / "colab"
RESULTS = ROOT / "docs" / "results" / "colab.json"
SETS = ("colab-2026.08", "colab-2026.07")
TORCH = metadata.version("torch").partition("+")[0]
MODES = {"on_colab": True, "elsewhere": False}
SHOWN = ("transformers", "numpy", "ipywidgets", "ipython")
THEIR_PYTHON = re.compile(r"Python (\d+\.\d+\.\d+)")


class Environment:
    """An environment with the packages of one set, and nothing of the course at first."""

    def __init__(self, name: str):
        self.name, self.pins = name, pins(f"{name}.txt")
        self.folder = PLACE / name
        self.bin = self.folder / "venv" / "bin"

    def make(self) -> None:
        """Nothing; what is there is what the set names, and what that requires."""
        wanted = "\n".join(sorted((self.pins | {"torch": f"torch=={TORCH}"}).values())) + "\n"
        stamp = self.folder / "requirements.txt"
        if not (stamp.exists() and stamp.read_text(encoding="utf-8") == wanted):
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "wanted.txt").write_text(wanted, encoding="utf-8")
            _call([sys.executable, "-m", "venv", "--clear", str(self.folder / "venv")])
            self.pip("install", "--quiet", "--requirement", str(self.folder / "wanted.txt"))
            write_text(self.folder / "before.json", json.dumps(self.freeze()))
            (self.folder / "wanted.txt").rename(stamp)
        if added := self.installed():
            self.pip("uninstall", "--yes", *added)

    def pip(self, *arguments: str) -> str:
        """What pip prints in this environment; raises `CourseError` when it fails."""
        return _call([str(self.bin / "python"), "-m", "pip", *arguments])

    def freeze(self) -> dict[str, str]:
        """Version by name of everything that is installed."""
        return {p["name"]: p["version"] for p in json.loads(self.pip("list", "--format=json"))}

    def installed(self) -> dict[str, str]:
        """Version by name of what came after the set; `CourseError` if something of it changed."""
        before = json.loads((self.folder / "before.json").read_text(encoding="utf-8"))
        now = self.freeze()
        if changed := [f"{k} {v} -> {now.get(k)}" for k, v in before.items() if now.get(k) != v]:
            raise CourseError(
                f"Something changed a package of the set: {', '.join(changed)}.",
                do=f"If the first cell did, mend it. Then remove {self.folder} to begin anew.",
            )
        return {k: v for k, v in now.items() if k not in before}

    def described(self) -> dict[str, dict[str, str]]:
        """The versions that matter, and where those here stand in for Colab's."""
        theirs = {name: line.partition("==")[2] for name, line in self.pins.items()}
        return {
            "python": {"here": platform.python_version(), "theirs": _their_python(self.name)},
            "torch": {"here": TORCH, "theirs": theirs["torch"]},
            "packages": {name: theirs[name] for name in SHOWN},
        }

    def run(self, source: Path, address: str, *, on_colab: bool) -> dict[str, Any]:
        """Whether the notebook runs, the date and, if it does not, why not."""
        work = self.folder / ("on_colab" if on_colab else "elsewhere")
        work.mkdir(parents=True, exist_ok=True)
        notebook = work / f"{source.stem}.ipynb"
        write_text(notebook, nbformat.writes(read_source(source, repository=address)))
        command = ["-m", "nbconvert", "--to", "notebook", "--execute", "--inplace"]
        done = subprocess.run(
            [str(self.bin / "python"), *command, "--ExecutePreprocessor.timeout=900", notebook],
            env=self._variables(on_colab),
            cwd=work,
            capture_output=True,
            encoding="utf-8",
        )
        result: dict[str, Any] = {"ok": not done.returncode, "date": _today()}
        if done.returncode:
            write_text(notebook.with_suffix(".log"), done.stderr)
            result["reason"] = _reason(done.stderr)
        return result

    def _variables(self, on_colab: bool) -> dict[str, str]:
        own = {
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "tools" / "fake_colab") if on_colab else "",
            "JUPYTER_PREFER_ENV_PATH": "1",
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # or its note is the last line of every log
            "COURSE_PROFILE": "smoke",
            "COURSE_CACHE": str(self.folder / "cache"),
            "COURSE_PROGRESS": str(self.folder / "progress.json"),
        }
        return os.environ | own | ({"COLAB_RELEASE_TAG": self.name} if on_colab else {})


def archive(folder: Path) -> str:
    """The address of a repository in `folder` whose archive is this working tree."""
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard"]
    names = [name for name in _call(listed).split("\0") if (ROOT / name).is_file()]
    path = folder / "archive" / "refs" / "heads" / f"{BRANCH}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name in names:
            zipped.write(ROOT / name, f"shrinking-bert-{BRANCH}/{name}")
    return folder.as_uri()


def try_set(name: str, sources: Sequence[Path], address: str) -> bool:
    """Whether these notebooks run among the packages of this set; the results file says more.

    Raises `CourseError` when the first cell changed a package that was there.
    """
    environment = Environment(name)
    environment.make()
    keep(name, environment.described())
    outcomes = []
    for mode, on_colab in MODES.items():
        for source in sources:
            result = environment.run(source, address, on_colab=on_colab)
            keep(name, {mode: {source.stem: result}})
            outcomes.append(result["ok"])
            told = "ok" if result["ok"] else result["reason"]
            print(f"{name}  {mode}  {source.stem}  {told}", flush=True)
    installed = environment.installed()
    print(
        f"{name}  the first cell installed: {', '.join(f'{k} {installed[k]}' for k in installed)}"
    )
    keep(name, {"installed": installed})
    return all(outcomes)


def keep(name: str, new: Mapping[str, Mapping[str, Any]]) -> None:
    """Nothing; the results file has the new values of this set, and its others as they were."""
    results = read_results()
    of_set = results.setdefault(name, {})
    for key, values in new.items():
        of_set[key] = (of_set.get(key, {}) if key in MODES else {}) | values
    write_text(RESULTS, json.dumps(results, indent=1, sort_keys=True) + "\n")


def read_results() -> dict[str, Any]:
    """What the last runs left, by set."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The README's table: a line for each set, from what its last run left."""
    lines = [
        f"| packages of | {' | '.join(SHOWN)} | notebooks that run: on Colab | elsewhere | "
        "Python, torch they ran with | date |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in sorted(results, reverse=True):
        run = results[name]
        cells = [name.replace("colab-", "Colab "), *(run["packages"][k] for k in SHOWN)]
        cells += [_count(run.get(mode, {})) for mode in MODES]
        cells += [", ".join(_instead(run[k]) for k in ("python", "torch"))]
        cells += [min(result["date"] for mode in MODES for result in run.get(mode, {}).values())]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 when a notebook failed, or an environment could not be made."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=SETS, help="names of files in constraints/")
    parser.add_argument("--only", action="append", default=[], help="a notebook's number")
    parser.add_argument("--table", action="store_true", help="only the README's table")
    options = parser.parse_args(arguments)
    good = True
    try:
        if unknown := sorted(set(options.sets) - set(SETS)):
            what = f"There is no set of Colab's packages {', '.join(unknown)}."
            raise CourseError(what, do=f"Use some of: {', '.join(SETS)}.")
        sources, address = select(options.only, ROOT), archive(PLACE / "site")
        for name in () if options.table else options.sets:
            print(f"{name}: Python {platform.python_version()}, torch {TORCH} stand in for Colab's")
            good &= try_set(name, sources, address)
        page = (ROOT / "README.md").read_text(encoding="utf-8")
        write_text(
            ROOT / "README.md",
            with_block(page, "works-on", table(read_results()), where="README.md"),
        )
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    return int(not good)


def _today() -> str:
    return datetime.date.today().isoformat()


def _count(notebooks: Mapping[str, Mapping[str, Any]]) -> str:
    if not notebooks:
        return "not tried yet"
    bad = [stem[:2] for stem, result in notebooks.items() if not result["ok"]]
    trouble = f", not {', '.join(bad)}" if bad else ""
    return f"{len(notebooks) - len(bad)} of {len(notebooks)} tried{trouble}"


def _instead(versions: Mapping[str, str]) -> str:
    here, theirs = versions["here"], versions["theirs"]
    return here if here == theirs else f"{here} for {theirs}"


def _their_python(name: str) -> str:
    text = (ROOT / "constraints" / f"{name}.txt").read_text(encoding="utf-8")
    return THEIR_PYTHON.search(text)[1]


def _reason(trouble: str) -> str:
    """The error's own line in what nbconvert says, without colours and paths of this machine."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", trouble).strip().splitlines() or ["no reason given"]
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Exit)\b.*:", line)]
    return (errors or lines)[-1].replace(str(ROOT), "").strip()[:200]


def _call(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    if done.returncode:
        *_, last = ["no reason given", *done.stderr.strip().splitlines()]
        raise CourseError(f"{' '.join(map(str, command[:4]))} … failed: {last}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
