"""The Hugging Face Hub, asked once and never waited for without end.

The client repeats a failed request by itself, up to five times with growing pauses, and has no
limit in all. So it works in a process of its own, which can be ended: here we wait `ANSWER_S`
seconds for its first answer and give up a download to which nothing was added for `STALL_S`.
Such a process also reads HF_ENDPOINT, HF_HOME and HF_TOKEN as they are now, not as they were when
the client was first imported.
"""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from course_utils.files import sha256

START_S = 60.0  # for a new Python to import the client
ANSWER_S = 5.0
STALL_S = 10.0
LIMIT_BYTES = 4 * 10**9

# What is asked for: never a pickle, never a script.
FILES = {
    "model": (
        "config.json",
        "tokenizer*",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab*",
        "merges.txt",
        "*.model",
        "*.safetensors",
        "model.safetensors.index.json",
    ),
    "dataset": ("*.parquet", "*.csv", "*.tsv", "*.json", "*.jsonl", "README.md"),
}
REFUSALS = {
    401: "the Hub shows nothing public by that name (401): if it is private or gated, log in with "
    "`hf auth login`",
    403: "the Hub does not let this account read it (403)",
    404: "the Hub has nothing by that name (404)",
    429: "the Hub turns requests away for now (429)",
}


class HubTrouble(Exception):
    """Why the Hub gave nothing, in words that fit after "because"."""


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) forbids asking the Hub."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in {"1", "ON", "YES", "TRUE"}


def cache_folder() -> Path:
    """The Hugging Face cache, by the variables as they are now."""
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"
    )
    return Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")).expanduser()


def cached(repo: str, kind: str, revision: str | None = None) -> Path | None:
    """The folder of a "model" or "dataset" in the Hugging Face cache, or None. Asks nobody."""
    try:
        return _snapshot(repo, kind, revision, local_files_only=True)
    except (OSError, ValueError):  # not there, not whole, or no possible name
        return None


def _snapshot(repo: str, kind: str, revision: str | None, **how) -> Path:
    """The folder of the course's kinds of files in the Hugging Face cache."""
    from huggingface_hub import snapshot_download  # reads the environment when imported

    how |= {"revision": revision, "cache_dir": cache_folder(), "allow_patterns": list(FILES[kind])}
    return Path(snapshot_download(repo, repo_type=kind, **how))


def fetch(repo: str, kind: str, revision: str | None = None) -> Path:
    """The folder of a "model" or "dataset", downloaded into the Hugging Face cache.

    Sizes, and the hashes of large files, are those the Hub announced. Raises `HubTrouble`.
    """
    if is_offline():
        raise HubTrouble("HF_HUB_OFFLINE is set, so nobody was asked")
    blobs = cache_folder() / f"{kind}s--{repo.replace('/', '--')}" / "blobs"
    unfinished = set(blobs.glob("*.incomplete"))
    child = _start(repo, kind, revision)
    told = _messages(child)
    try:
        _next(told, START_S, "the Hub's client did not start")
        size = _next(told, ANSWER_S, f"the Hub did not answer within {ANSWER_S:g} s")["bytes"]
        folder = Path(_watch(told, blobs, size)["folder"])
    finally:
        child.kill()
        child.wait()
        for file in set(blobs.glob("*.incomplete")) - unfinished:
            file.unlink(missing_ok=True)
    _check_hashes(folder)
    return folder


def _start(repo: str, kind: str, revision: str | None) -> subprocess.Popen:
    quiet = {
        "HF_HUB_DISABLE_TELEMETRY": "1",  # it would ask the Hub a question of its own first
        "HF_HUB_DISABLE_XET": "1",  # plain HTTP writes as bytes arrive, so a stall can be seen
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, repo, kind, revision or ""],
        env=os.environ | quiet | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    )


def _messages(child: subprocess.Popen) -> queue.Queue[dict]:
    """What the child says, line by line, in a queue that can be waited for with a limit."""
    told: queue.Queue[dict] = queue.Queue()

    def read() -> None:
        with child.stdout as lines:
            for line in lines:
                told.put(json.loads(line))
        told.put({"trouble": "the Hub's client ended without an answer"})

    threading.Thread(target=read, daemon=True).start()
    return told


def _next(told: queue.Queue[dict], seconds: float, otherwise: str) -> dict:
    try:
        message = told.get(timeout=seconds)
    except queue.Empty:
        raise HubTrouble(otherwise) from None
    if "trouble" in message:
        raise HubTrouble(message["trouble"])
    return message


def _watch(told: queue.Queue[dict], blobs: Path, size: int) -> dict:
    """The child's last message; the files it writes show whether it gets on."""
    from tqdm import tqdm

    start = here = _size(blobs.glob("*"))
    since = time.monotonic()
    with tqdm(total=size, unit="B", unit_scale=True, desc="from the Hub", delay=1) as bar:
        while told.empty():
            time.sleep(0.05)
            before, here = here, _size(blobs.glob("*"))
            if here != before:
                since = time.monotonic()
                bar.update(here - before)
            elif time.monotonic() - since > STALL_S:
                raise HubTrouble(
                    f"the download stopped: after {here - start} of {size} bytes nothing came "
                    f"for {STALL_S:g} s"
                )
    return _next(told, 0, "")


def _size(files: Iterable[Path]) -> int:
    total = 0
    for file in files:
        try:
            total += file.stat().st_size
        except FileNotFoundError:  # renamed since it was listed
            continue
    return total


def _check_hashes(folder: Path) -> None:
    """In this cache a large file's name is its SHA-256; one that differs is taken away."""
    for file in folder.rglob("*"):
        blob = file.resolve()
        if re.fullmatch("[0-9a-f]{64}", blob.name) and sha256(blob) != blob.name:
            blob.unlink()
            file.unlink()
            raise HubTrouble(f"{file.name} arrived damaged")


# --- from here on: the child process ---


def _tell(**message: object) -> None:
    """Nothing; one line to the parent, written at once: the client downloads in several threads."""
    os.write(sys.stdout.fileno(), (json.dumps(message) + "\n").encode())


def _refuse(response) -> None:
    """Called by the client for each response: ends the process where the client would repeat."""
    status = response.status_code
    if status >= 400:
        _tell(trouble=REFUSALS.get(status, f"the Hub is out of order ({status})"))
        os._exit(1)


def _wanted(siblings: Iterable, kind: str) -> dict[str, int | None]:
    return {
        file.rfilename: file.size
        for file in siblings
        if any(fnmatch(file.rfilename, pattern) for pattern in FILES[kind])
    }


def _download(repo: str, kind: str, revision: str | None) -> None:
    from huggingface_hub import HfApi, constants, get_session

    constants.DOWNLOAD_CHUNK_SIZE = 2**14  # written as it comes; 10 MB would look like a stall
    session = get_session()
    session.event_hooks = {**session.event_hooks, "response": [_refuse]}
    _tell(ready=True)
    try:
        info = HfApi().repo_info(repo, repo_type=kind, revision=revision, files_metadata=True)
    except Exception as error:
        down = "Connect" in type(error).__name__
        how = "cannot be reached" if down else "gave no usable answer"
        _tell(trouble=f"the Hub {how} ({_first_line(error)})")
        return
    files = _wanted(info.siblings or [], kind)
    total = sum(size or 0 for size in files.values())
    if total > LIMIT_BYTES:
        _tell(trouble=f"on the Hub it has {total / 1e9:.0f} GB, more than is fetched unasked")
        return
    _tell(bytes=total)
    try:
        folder = _snapshot(repo, kind, revision)
        for name, size in files.items():
            if size is not None and (folder / name).stat().st_size != size:
                raise OSError(f"{name} is not {size} bytes long")
    except Exception as error:
        _tell(trouble=f"the download failed ({_first_line(error)})")
        return
    _tell(folder=str(folder))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


if __name__ == "__main__":
    _download(sys.argv[1], sys.argv[2], sys.argv[3] or None)
