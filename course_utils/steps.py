"""Work in steps, each with a folder: a step whose inputs did not change is not done again.

A step writes into a temporary folder that is renamed when it is complete, together with a record of
its inputs and of the hash of every file. So an interruption, a full disk or a torn file at any
moment costs at most the step it hits: the next run goes on from there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from course_utils.errors import OutputError
from course_utils.files import check_writable, new_folder, sha256, write_text

RECORD = "step.json"
SETTINGS = "run.json"
Step = tuple[Path, str]  # a step's folder and its key


class Steps:
    """One output folder and the settings of the run that it belongs to.

    Raises `OutputError` when the folder is not writable, holds a run with other settings, or holds
    something that is no run at all; nothing in it is touched then.
    """

    def __init__(
        self,
        folder: str | Path,
        settings: dict[str, object],
        *,
        say: Callable[[str], object] = print,
    ):
        self.folder = check_writable(folder)
        self.say = say
        self._own(settings)

    def _own(self, settings: dict[str, object]) -> None:
        file = self.folder / SETTINGS
        settings = json.loads(json.dumps(settings))  # as they are read back: a tuple is a list
        held = _read_json(file)
        # A killed run may leave hidden temporary files, and some systems put their own there.
        if held is None and any(not path.name.startswith(".") for path in self.folder.iterdir()):
            raise OutputError(
                "This folder is not empty and holds no run of the course.",
                where=self.folder,
                do="Choose a new folder with --out.",
            )
        if held is not None and held != settings:
            changes = ", ".join(
                f"{name} {held.get(name)!r} there, {settings.get(name)!r} now"
                for name in held | settings
                if held.get(name) != settings.get(name)
            )
            raise OutputError(
                f"This folder holds a run with other settings: {changes}.",
                where=self.folder,
                do="Choose another folder with --out, or remove this one if you do not need it.",
            )
        write_text(file, json.dumps(settings, indent=2) + "\n")

    def do(self, name: str, work: Callable[[Path], object], **inputs: object) -> Step:
        """The step's folder, complete, and its key, made of the inputs (JSON values).

        `work` is called with an empty folder to fill, unless the folder of an earlier run has the
        same key and every file is as it was. Give the key of a step to the steps that depend on it.
        """
        key = hashlib.sha256(json.dumps([name, inputs], sort_keys=True).encode()).hexdigest()[:16]
        folder = self.folder / name
        if is_complete(folder, key):
            self.say(f"{name}: kept from an earlier run")
            return folder, key
        self.say(f"{name}: working")
        with new_folder(folder) as fresh:
            work(fresh)
            files = {p.relative_to(fresh).as_posix(): sha256(p) for p in _files(fresh)}
            write_text(fresh / RECORD, json.dumps({"key": key, "files": files}, indent=2) + "\n")
        return folder, key


def is_complete(folder: Path, key: str) -> bool:
    """Whether a step's folder was made with this key and every file has the bytes it had then."""
    record = _read_json(folder / RECORD)
    return (
        record is not None
        and record.get("key") == key
        and all(
            (folder / name).is_file() and sha256(folder / name) == digest
            for name, digest in record.get("files", {}).items()
        )
    )


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _read_json(file: Path) -> dict | None:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
