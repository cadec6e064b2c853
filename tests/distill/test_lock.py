"""Two runs into one folder: the second is refused, and a killed one is in nobody's way."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import signal
import socket
import time
from datetime import datetime, timedelta

import pytest

from course_utils import files
from course_utils.distill import lock
from course_utils.distill.lock import RunLock
from course_utils.errors import OutputError

SERVER = multiprocessing.get_context("forkserver")
REFUSED = re.compile(r"Another run .*: process (\d+|\?) on (\S+), started (.+)\.\n")


def hold(folder, pipe, *, with_child: bool = False) -> None:
    """Take the lock, tell the number of the child, if there is to be one, and stay."""
    with RunLock(folder):
        child = os.fork() if with_child else None
        if child != 0:
            pipe.send(child)
        time.sleep(600)


def start(folder, **options):
    """A process that holds the lock, and its child's number."""
    ours, theirs = SERVER.Pipe()
    process = SERVER.Process(target=hold, args=(folder, theirs), kwargs=options, daemon=True)
    process.start()
    assert ours.poll(240), "the process did not take the lock"
    return process, ours.recv()


@pytest.fixture
def patient(monkeypatch):
    """No test waits long; none has to."""
    monkeypatch.setattr(lock, "PATIENCE", 0.5)


def test_a_second_run_is_refused_and_told_of_the_first(tmp_path):
    process, _ = start(tmp_path)
    with pytest.raises(OutputError, match=REFUSED) as error, RunLock(tmp_path):
        pytest.fail("two runs at once")
    pid, host, started = REFUSED.match(str(error.value)).groups()
    assert (int(pid), host) == (process.pid, socket.gethostname())
    age = datetime.now().astimezone() - datetime.fromisoformat(started)
    assert timedelta(0) <= age < timedelta(minutes=10)
    assert error.value.where == tmp_path
    process.kill()
    process.join()


def test_after_a_kill_the_lock_is_free_by_itself(tmp_path, patient):
    process, _ = start(tmp_path)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with RunLock(tmp_path):
        assert json.loads((tmp_path / lock.HOLDER).read_text())[0] == os.getpid()


def test_a_killed_runs_children_do_not_keep_the_next_one_out(tmp_path):
    process, child = start(tmp_path, with_child=True)
    process.kill()
    process.join()
    try:
        os.kill(child, 0)  # it lives
        with RunLock(tmp_path):
            assert json.loads((tmp_path / lock.HOLDER).read_text())[0] == os.getpid()
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_the_lock_is_free_after_a_run_however_it_ended(tmp_path, patient, error):
    for _ in range(2):
        try:
            with RunLock(tmp_path):
                if error:
                    raise error
        except (ValueError, KeyboardInterrupt):
            pass
        with RunLock(tmp_path):
            pass


def test_two_locks_in_one_process_exclude_each_other(tmp_path):
    with RunLock(tmp_path):
        with pytest.raises(OutputError, match=f"process {os.getpid()} on"), RunLock(tmp_path):
            pytest.fail("two runs at once")
        with RunLock(tmp_path / "other"):
            pass


def test_a_refusal_leaves_the_first_runs_lock_and_name(tmp_path):
    with RunLock(tmp_path):
        for _ in range(3):
            with pytest.raises(OutputError, match=f"process {os.getpid()} on"), RunLock(tmp_path):
                pytest.fail("two runs at once")


@pytest.mark.parametrize("content", ["", "{", "3", "[1]", '{"pid": 1}', None])
def test_who_left_no_name_is_refused_too(tmp_path, patient, content):
    with RunLock(tmp_path):
        holder = tmp_path / lock.HOLDER
        holder.unlink() if content is None else holder.write_text(content)
        with pytest.raises(OutputError, match=r"process \? on \?"), RunLock(tmp_path):
            pytest.fail("two runs at once")


@pytest.mark.parametrize(
    ("pid", "host", "waits"),
    [
        (os.getpid(), socket.gethostname(), False),
        (2**22 + 1, socket.gethostname(), True),  # beyond the numbers that Linux gives
        (2**22 + 1, "elsewhere", False),
    ],
    ids=["alive", "gone", "elsewhere"],  # names that are the same in every process
)
def test_only_one_that_is_gone_is_waited_for(tmp_path, monkeypatch, pid, host, waits):
    asked = []

    class Noted(lock.FileLock):
        def acquire(self, timeout=None, **options):
            asked.append(timeout)
            return super().acquire(timeout=0, **options)

    with RunLock(tmp_path):
        (tmp_path / lock.HOLDER).write_text(json.dumps([pid, host, "then"]))
        monkeypatch.setattr(lock, "FileLock", Noted)
        with pytest.raises(OutputError, match=f"process {pid} on {host}, started then"):
            RunLock(tmp_path).__enter__()
    assert asked == [lock.PATIENCE if waits else 0]


def test_a_full_disk_keeps_no_lock(tmp_path, monkeypatch, patient):
    def full(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(files.os, "replace", full)
        with pytest.raises(OutputError, match="Free some space") as kept, RunLock(tmp_path):
            pytest.fail("nothing can be written")
    with RunLock(tmp_path):
        assert kept.value.do


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="hoose another folder"), RunLock(tmp_path / "file"):
        pytest.fail("there is no such folder")
