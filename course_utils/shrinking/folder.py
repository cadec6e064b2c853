"""The folder that `course distill` fills: finished files, and the steps of the run in `work`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from course_utils.errors import OutputError
from course_utils.files import new_folder, write_text
from course_utils.steps import SETTINGS

WORK = "work"


def refuse_foreign(out: Path) -> None:
    """Nothing; raises `OutputError` when `out` holds something that no run of ours has made."""
    if out.is_dir():
        others = [path for path in out.iterdir() if not path.name.startswith(".")]
        if others and not (out / WORK / SETTINGS).is_file():
            raise OutputError(
                f"This folder is not empty and holds no run of course distill: {others[0].name}.",
                where=out,
                do="Choose a new folder with --out.",
            )


def put(out: Path, files: Mapping[str, Path | str]) -> None:
    """Nothing; the files, copied or written, stand in `out`. All are there before one is replaced.

    config.json comes last: without it nothing loads the folder.
    """
    new = out / ".new"
    with new_folder(new) as fresh:
        for name, content in files.items():
            if isinstance(content, Path):
                shutil.copyfile(content, fresh / name)
            else:
                write_text(fresh / name, content)
    for name in sorted(files, key="config.json".__eq__):
        os.replace(new / name, out / name)
    new.rmdir()
