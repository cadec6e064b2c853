"""One run per folder: a lock that names who holds it and that no killed run leaves behind."""

from __future__ import annotations

import json
import os
import socket
from datetime import datetime
from pathlib import Path
from typing import Self

import psutil
from filelock import FileLock, Timeout

from course_utils.errors import OutputError
from course_utils.files import check_writable, write_text

LOCK, HOLDER = ".lock", ".lock.json"

# Processes that load data live some seconds longer than the run that was killed, and may hold its
# lock until they notice.
PATIENCE = 15.0  # seconds


class RunLock:
    """A context in which no other run, of this machine or another, may write into `folder`.

    The system itself holds the lock and frees it when the process ends, however it ends. Raises
    `OutputError` naming the run that is there: its process, its machine, when it started.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._holder = self.folder / HOLDER

    def __enter__(self) -> Self:
        check_writable(self.folder)
        self._lock = FileLock(self.folder / LOCK)
        try:
            self._lock.acquire(timeout=0 if self._other_lives() else PATIENCE)
        except Timeout:
            pid, host, started = self._other() or ("?", "?", "?")
            raise OutputError(
                f"Another run writes into this folder: process {pid} on {host}, started {started}.",
                where=self.folder,
                do="Wait until it has ended, stop it, or choose another folder.",
            ) from None
        started = datetime.now().astimezone().isoformat(" ", "seconds")
        try:
            write_text(self._holder, json.dumps([os.getpid(), socket.gethostname(), started]))
        except OutputError:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _other(self) -> tuple[int, str, str] | None:
        """Process, machine and start of the run that holds the lock or held it last, if known."""
        try:
            pid, host, started = json.loads(self._holder.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError):
            return None
        return pid, host, started

    def _other_lives(self) -> bool:
        """Whether the other run may be there still; nobody can ask another machine."""
        if not (other := self._other()):
            return False
        pid, host, _ = other
        return host != socket.gethostname() or psutil.pid_exists(pid)
