"""Writing that loses nothing: everything goes to a temporary name first and is then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from course_utils.errors import OutputError

_ADVICE = {
    errno.ENOSPC: "Free some space on this disk, or choose another folder, and run it again.",
    errno.EDQUOT: "Your disk quota is used up: free some space or choose another folder.",
    errno.EACCES: "Choose a folder you may write to.",
    errno.EPERM: "Choose a folder you may write to.",
    errno.EROFS: "This disk is read-only: choose another folder.",
    errno.ENOTDIR: "A file stands where a folder is needed: choose another folder.",
    errno.EEXIST: "A file stands where a folder is needed: choose another folder.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.EISDIR: "A folder stands where a file is needed: choose another name.",
    errno.EFBIG: "Files of this size are not allowed here: choose another folder.",
}

_OF_A_MODEL = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.onnx",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
}


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Nothing; in the block the system's errors become an `OutputError` that says what to do."""
    try:
        yield
    except Exception as error:
        number = _system_error(error)
        if number not in _ADVICE:
            raise
        raise OutputError(
            f"Could not write here: {os.strerror(number)}.", where=path, do=_ADVICE[number]
        ) from error


def _system_error(error: Exception) -> int | None:
    """The system's number of an error; libraries in Rust, as safetensors, have it in the words."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


@contextlib.contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its name when the block ends without an error.

    What was at `path` stays until then and is replaced as a whole. After an error the temporary
    folder is removed. Raises `OutputError` when the place is not writable or the disk is full.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        old = None
        try:
            yield work
            os.chmod(work, 0o755)
            if path.exists():
                old = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.parent)) / "was"
                os.rename(path, old)
            os.rename(work, path)
        except BaseException:
            if old is not None and old.exists() and not path.exists():
                os.rename(old, path)
            shutil.rmtree(work, ignore_errors=True)
            raise
        finally:
            if old is not None:
                shutil.rmtree(old.parent, ignore_errors=True)


def refuse_loss(
    folder: str | Path, is_ours: Callable[[Path], bool], keep: Iterable[str | Path] = ()
) -> None:
    """Nothing; raises `OutputError` when a `new_folder` of this name would take something away.

    That is a file, whatever is not `is_ours` in a folder, and a folder that is, or holds, the
    working directory or one of `keep`: what the new folder is made from.
    """
    place = Path(os.path.realpath(folder))  # resolve() raises at links that go in a circle
    if Path.cwd().is_relative_to(place):
        raise OutputError(
            "The new folder would replace the one you are in.",
            where=place,
            do="Choose a folder in it.",
        )
    for kept in map(Path, keep):
        if kept.exists() and kept.resolve().is_relative_to(place):
            raise OutputError(
                "The new folder would replace the one it is made from.",
                where=kept,
                do="Choose another folder.",
            )
    with writing(place):
        if place.exists() and not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        others = [path for path in place.iterdir() if not is_ours(path)] if place.is_dir() else []
    if others:
        raise OutputError(
            f"The new folder would replace this one, which holds other things: {others[0].name}.",
            where=place,
            do="Choose a new folder, or an empty one.",
        )


def is_of_a_model(path: Path) -> bool:
    """Whether the file's name is one that saving a model gives."""
    return path.name in _OF_A_MODEL


def write_text(path: str | Path, text: str) -> Path:
    """Write `text` (UTF-8) to `path` in one step; a reader sees the old file or the new one."""
    return write_bytes(path, text.encode())


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write `content` to `path` in one step; a reader sees the old file or the new one."""
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    return path


def check_writable(folder: str | Path) -> Path:
    """The folder, made if it was missing; raises `OutputError` before any work is done in vain."""
    folder = Path(folder)
    with writing(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:  # its parent is there and takes no folders, as /proc on Linux
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None
        with tempfile.TemporaryFile(dir=folder):
            pass
    return folder


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
