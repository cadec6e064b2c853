"""A Hub on loopback: the routes the real client uses, for repositories held in memory.

`trouble` says how it misbehaves, `at` says where: when it is asked what there is ("info") or when
a file is fetched ("file").
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

INFO = re.compile(r"/api/(models|datasets)/(.+?)(?:/(revision|tree)/([^/]+))?")
FILE = re.compile(r"/(datasets/)?(.+?)/resolve/([^/]+)/(.+)")
BIG = (".safetensors", ".parquet")  # these the Hub keeps by SHA-256, the others by git's hash


class FakeHub(ThreadingHTTPServer):
    """`repos` maps ("model" | "dataset", id) to {file name: bytes}; `requests` lists what came."""

    daemon_threads = True

    def __init__(self, repos: dict[tuple[str, str], dict[str, bytes]]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos = repos
        self.trouble: str | None = None
        self.at = "info"
        self.requests: list[str] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing: a client that was ended leaves broken connections behind."""


def commit(files: dict[str, bytes]) -> str:
    """The commit the repository is at: it changes with the files."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


def etag(name: str, data: bytes) -> str:
    if name.endswith(BIG):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        file, info = FILE.fullmatch(path), INFO.fullmatch(path)
        if self.server.at == ("file" if file else "info") and self.misbehaves():
            pass
        elif file:
            folder, repo, revision, name = file.groups()
            files = self.files("dataset" if folder else "model", repo, revision)
            if name in files:
                self.send_file(name, files)
            else:
                self.refuse(404)
        elif info:
            folder, repo, what, revision = info.groups()
            files = self.files(folder.removesuffix("s"), repo, revision)
            if files:
                self.send_json(tree(files) if what == "tree" else listing(repo, files))
            else:
                self.refuse(404)
        else:
            self.refuse(404)

    def files(self, kind: str, repo: str, revision: str | None) -> dict[str, bytes]:
        files = self.server.repos.get((kind, repo), {})
        return files if revision in (None, "main", commit(files)) else {}

    def misbehaves(self) -> bool:
        """Whether the trouble was made here; a trouble within a file is made in `send_body`."""
        trouble = self.server.trouble or ""
        if trouble == "hang":
            self.server.closing.wait(60)
        elif trouble.isdigit():
            self.refuse(int(trouble))
        return trouble == "hang" or trouble.isdigit()

    def send_json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send(200, body, {"Content-Type": "application/json"})

    def refuse(self, status: int) -> None:
        code = {401: "GatedRepo", 403: "GatedRepo", 404: "RepoNotFound"}.get(status, "")
        self.send(status, b"", {"X-Error-Code": code, "Retry-After": "3600"})

    def send_file(self, name: str, files: dict[str, bytes]) -> None:
        data = files[name]
        headers = {"ETag": f'"{etag(name, data)}"', "X-Repo-Commit": commit(files)}
        headers["Accept-Ranges"] = "bytes"
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        status, first = (206, int(start[1])) if start else (200, 0)
        if start:
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        if self.server.trouble == "damaged" and name.endswith(BIG):
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.send(status, data[first:], headers)

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.send_body(body)

    def send_body(self, body: bytes) -> None:
        trouble = self.server.trouble if "/resolve/" in self.path else None
        if trouble in ("cut", "stall"):
            # What is asked for again, from where it broke off, is cut at once.
            self.wfile.write(b"" if "Range" in self.headers else body[: len(body) // 2])
            self.wfile.flush()
            if trouble == "stall":
                self.server.closing.wait(60)
            self.close_connection = True
        elif trouble == "slow":
            for i in range(0, len(body), 2**15):
                self.wfile.write(body[i : i + 2**15])
                self.wfile.flush()
                time.sleep(0.3)
        else:
            self.wfile.write(body)


def listing(repo: str, files: dict[str, bytes]) -> dict:
    siblings = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
    return {"id": repo, "sha": commit(files), "siblings": siblings, "tags": []}


def tree(files: dict[str, bytes]) -> list[dict]:
    entries = []
    for name, data in files.items():
        entry = {"type": "file", "path": name, "size": len(data), "oid": etag(name, data)[:40]}
        if name.endswith(BIG):
            entry["lfs"] = {"oid": etag(name, data), "size": len(data), "pointerSize": 134}
        entries.append(entry)
    return entries
