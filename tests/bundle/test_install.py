"""From a bundle a machine is ready in one command, and where it cannot be, that is said first."""

from __future__ import annotations

import ast
import functools
import hashlib
import http.server
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path

import pytest

from course_utils.bundle import install

SCRIPT = Path(install.__file__)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "home" / "cache"))
    return tmp_path / "home"


@pytest.fixture
def no_packages(monkeypatch):
    """Instead of an environment, a script that says how it was called."""

    def environment(target, bundle, pip, pins):
        python = install.python_of(target)
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text('#!/bin/sh\necho "$@"\n')
        python.chmod(0o755)
        made.append(pins)

    made = []
    monkeypatch.setattr(install, "make_environment", environment)
    return made


def run(*words, script="install.sh", **environment):
    return subprocess.run(
        ["/bin/sh", *map(str, words)] if script == "install.sh" else [sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


@pytest.mark.skipif(os.name == "nt", reason="this is the way of Linux and macOS")
def test_one_command_makes_a_machine_ready(bundle, home, tmp_path):
    target = tmp_path / "a course"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    before = {p: p.stat().st_mtime_ns for p in bundle.rglob("*")}
    settings = {"PIP_INDEX_URL": "http://127.0.0.1:9/nobody", "PIP_USER": "1", "PATH": path}
    done = run(bundle / "install.sh", target, **settings)
    assert done.returncode == 0, done.stderr
    assert "the doctor was here: doctor" in done.stdout
    assert done.stdout.rstrip().endswith(
        f'cd "{target}"\n'
        "  .venv/bin/jupyter lab --ServerApp.root_dir=. notebooks/00_start_here.ipynb"
    )
    assert (target / "notebooks" / "00_start_here.ipynb").is_file()
    assert (target / "data" / "probes" / "probes.tsv").is_file()
    assert (home / "cache" / "prepared" / "teacher" / "weights").read_text() == "weights"
    assert not (home / "cache" / "progress.json").exists()
    look = "import alpha, beta, gt_weights; print(alpha.__file__)"
    found = subprocess.check_output([install.python_of(target), "-I", "-c", look], text=True)
    assert found.startswith(str(target))
    after = {p: p.stat().st_mtime_ns for p in bundle.rglob("*")}
    assert after == before, "a stick may be read-only"


def test_a_second_time_keeps_what_the_learner_did(bundle, home, tmp_path, no_packages, capfd):
    target = tmp_path / "course"
    notebook = target / "notebooks" / "00_start_here.ipynb"
    assert install.install(str(bundle), target) == 0
    notebook.write_text("my answers")
    (target / "LICENSE").unlink()
    kept = home / "cache" / "prepared" / "teacher" / "weights"
    kept.write_text("trained here")
    assert install.install(str(bundle), target) == 0
    assert len(no_packages) == 1
    said = capfd.readouterr().out
    assert "left as you changed them: notebooks/00_start_here.ipynb" in said
    assert notebook.read_text() == "my answers"
    assert (target / "LICENSE").is_file()
    assert kept.read_text() == "trained here"


def test_a_new_bundle_replaces_what_nobody_changed(bundle, home, tmp_path, no_packages):
    target = tmp_path / "course"
    install.install(str(bundle), target)
    name = "course/notebooks/00_start_here.ipynb"
    new = b'{"cells": ["new"]}'
    sums = install.read_sums(bundle)
    (bundle / name).write_bytes(new)
    text = (bundle / "SHA256SUMS").read_text()
    (bundle / "SHA256SUMS").write_text(text.replace(sums[name], hashlib.sha256(new).hexdigest()))
    install.install(str(bundle), target)
    assert (target / "notebooks" / "00_start_here.ipynb").read_bytes() == new


def test_an_installation_that_was_stopped_is_made_anew(bundle, home, tmp_path, monkeypatch):
    target = tmp_path / "course"
    calls = []

    def stopped(target, *words):
        calls.append(words)
        install.python_of(target).parent.mkdir(parents=True, exist_ok=True)
        install.python_of(target).write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(install, "make_environment", stopped)
    for _ in range(2):
        assert install.main([str(target), "--from", str(bundle)]) == 130
    assert len(calls) == 2


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_a_wheel_missing_or_damaged_is_named_before_anything(bundle, home, tmp_path, fault, capsys):
    wheel = next((bundle / "wheels").glob("beta-*"))
    wheel.unlink() if fault == "missing" else wheel.write_bytes(wheel.read_bytes()[:-1])
    assert install.main([str(tmp_path / "course"), "--from", str(bundle)]) == 2
    said = capsys.readouterr().err
    assert f"wheels/{wheel.name} is {fault}" in said
    assert "Copy the bundle anew" in said
    assert not (tmp_path / "course").exists()
    assert install.main(["--check", "--from", str(bundle)]) == 2


def test_what_is_no_bundle_or_was_not_finished(bundle, home, tmp_path, capsys):
    (bundle / "SHA256SUMS").unlink()
    for folder, lacks in ((bundle, "SHA256SUMS"), (tmp_path, "bundle.json")):
        assert install.main([str(tmp_path / "course"), "--from", str(folder)]) == 2
        assert f"not a whole bundle: {lacks} is missing" in capsys.readouterr().err


def test_sums_that_are_torn(bundle, home, tmp_path, capsys):
    text = (bundle / "SHA256SUMS").read_text()
    (bundle / "SHA256SUMS").write_text(text[:30])
    assert install.main([str(tmp_path / "course"), "--from", str(bundle)]) == 2
    (bundle / "SHA256SUMS").write_text("\n".join(text.splitlines()[:3]))
    assert install.main([str(tmp_path / "course"), "--from", str(bundle)]) == 2
    said = capsys.readouterr().err
    assert "SHA256SUMS is damaged" in said
    assert "SHA256SUMS lacks wheels/" in said


OUTSIDE = [
    "../../../../etc/hostname",
    "/etc/hostname",
    "C:/x",
    "a\\..\\..\\x",
    "//server/x",
    "a\0b",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_sums_that_name_what_is_no_file_of_the_bundle(bundle, home, tmp_path, capsys, name):
    with open(bundle / "SHA256SUMS", "a") as stream:
        stream.write(f"{'0' * 64}  {name}\n")
    for words in ([str(tmp_path / "course")], ["--check"]):
        assert install.main([*words, "--from", str(bundle)]) == 2
        assert "SHA256SUMS is damaged" in capsys.readouterr().err
    assert not (tmp_path / "course").exists()


DAMAGED = {"list": "[]", "nothing": "{}", "number": "5", "deep": "[" * 100_000}


@pytest.mark.parametrize("fault", [*DAMAGED, "platforms", "python_least", "unpacked_bytes"])
def test_a_manifest_that_is_damaged(bundle, home, tmp_path, capsys, fault):
    file = bundle / "bundle.json"
    text = file.read_text().replace(f'"{fault}"', '"another"')
    file.write_text(DAMAGED.get(fault, text))
    assert install.main([str(tmp_path / "course"), "--from", str(bundle)]) == 2
    assert "bundle.json is damaged" in capsys.readouterr().err
    assert not (tmp_path / "course").exists()
    assert install.main(["--check", "--from", str(bundle)]) == 2


def test_an_empty_list_is_no_whole_bundle(bundle, home, capsys):
    (bundle / "SHA256SUMS").write_text("")
    assert install.main(["--check", "--from", str(bundle)]) == 2
    assert "SHA256SUMS is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "name", "value", "said"),
    [
        (install, "this_platform", lambda: "macos-x86_64", "this machine is macos-x86_64"),
        (platform, "python_version", lambda: "3.8.2", "this is 3.8.2"),
        (platform, "libc_ver", lambda: ("glibc", "2.27"), "has glibc 2.27"),
        (platform, "libc_ver", lambda: ("", ""), "has no glibc"),
        (sys, "maxsize", 2**31 - 1, "32-bit"),
        (install, "python_older", None, "from 3.99"),
    ],
)
def test_another_machine_is_told_before_anything(
    bundle, home, tmp_path, monkeypatch, capsys, module, name, value, said
):
    if name == "libc_ver" and not sys.platform.startswith("linux"):
        pytest.skip("glibc is Linux's")
    if name == "python_older":
        manifest = json.loads((bundle / "bundle.json").read_text())
        manifest["python_least"] = "3.99.1"
        (bundle / "bundle.json").write_text(json.dumps(manifest))
    else:
        monkeypatch.setattr(module, name, value)
    assert install.main([str(tmp_path / "course"), "--from", str(bundle)]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "course").exists()


def test_the_folder_of_something_else_is_left_alone(bundle, home, tmp_path, capsys):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("chapter 1")
    assert install.main([str(tmp_path / "thesis"), "--from", str(bundle)]) == 2
    assert "not empty and holds no course" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["thesis.tex"]


def test_a_full_disk_is_told_before_anything(bundle, home, tmp_path, monkeypatch, capsys):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10, 10, 0))
    assert install.main([str(tmp_path / "course"), "--from", str(bundle)]) == 2
    assert "0.00 GB are free" in capsys.readouterr().err
    assert not (tmp_path / "course").exists()


def test_a_cache_of_another_python_stays_behind(bundle, home, tmp_path, no_packages, capfd):
    manifest = json.loads((bundle / "bundle.json").read_text()) | {"built_with": "3.11.99"}
    manifest_text = json.dumps(manifest).encode()
    sums = (bundle / "SHA256SUMS").read_text()
    old = install.read_sums(bundle)["bundle.json"]
    (bundle / "bundle.json").write_bytes(manifest_text)
    (bundle / "SHA256SUMS").write_text(sums.replace(old, hashlib.sha256(manifest_text).hexdigest()))
    assert install.install(str(bundle), tmp_path / "course") == 0
    assert "these are of Python 3.11.99" in capfd.readouterr().out
    assert not (home / "cache").exists()


def test_from_a_server_in_the_room(bundle, home, tmp_path, no_packages, capsys, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    target, asked = tmp_path / "course", []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            asked.append(self.path)

    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["platforms"]["amiga"] = {"wheels": ["elsewhere.whl"]}
    text = json.dumps(manifest).encode()
    sums = (bundle / "SHA256SUMS").read_text()
    old = install.read_sums(bundle)["bundle.json"]
    (bundle / "bundle.json").write_bytes(text)
    sums = (
        sums.replace(old, hashlib.sha256(text).hexdigest()) + "0" * 64 + "  wheels/elsewhere.whl\n"
    )
    (bundle / "SHA256SUMS").write_text(sums)
    serve = functools.partial(Handler, directory=str(bundle))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        lost = bundle / "course" / "LICENSE"
        lost.rename(tmp_path / "LICENSE")
        assert install.main([str(target), "--from", url]) == 2
        assert "LICENSE did not come: HTTP Error 404" in capsys.readouterr().err
        (tmp_path / "LICENSE").rename(lost)
        assert install.main([str(target), "--from", url]) == 0
        wheels = [path for path in asked if path.startswith("/wheels/")]
        assert install.main([str(target), "--from", url]) == 0
        server.shutdown()
    assert [path for path in asked if path.startswith("/wheels/")] == wheels != []
    assert asked.count("/README.txt") == 2, "what had come is not fetched again"
    assert not any("elsewhere" in path for path in asked)
    assert (target / "notebooks" / "00_start_here.ipynb").is_file()
    assert not (target / ".bundle").exists()


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "ftp://127.0.0.1:9", "other://x"])
def test_no_server(home, tmp_path, capsys, address):
    assert install.main([str(tmp_path / "course"), "--from", address]) == 2
    assert "bundle.json did not come" in capsys.readouterr().err


def test_an_old_python_can_read_the_installer():
    ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 6))


@pytest.mark.skipif(os.name == "nt", reason="this is the way of Linux and macOS")
def test_without_any_python_it_says_which(bundle, home, tmp_path):
    (tmp_path / "bin").mkdir()
    os.symlink(shutil.which("dirname"), tmp_path / "bin" / "dirname")
    done = run(bundle / "install.sh", tmp_path / "course", PATH=str(tmp_path / "bin"))
    assert done.returncode == 2
    version = "{}.{}".format(*sys.version_info)
    assert done.stderr == f"There is no Python here. Install Python {version} and run this again.\n"
