"""A web server for tests, in threads of this process; what it does wrong is said per path."""

from __future__ import annotations

import hashlib
import socket
import socketserver
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from children import LONG

LAST_MODIFIED = "Wed, 01 Dec 2021 12:00:00 GMT"
PIECE = 1 << 14  # bytes that are sent at once


@dataclass
class File:
    """What one path serves, and how. Lists are used up, one entry per request."""

    body: bytes
    etag: str | None = ""  # "": made from the body; None: not sent
    modified: str | None = LAST_MODIFIED
    kind: str = "application/octet-stream"
    statuses: list[int] = field(default_factory=list)  # to answer with, before the file
    cuts: list[int | None] = field(default_factory=list)  # bytes after which the connection breaks; None: not
    ranges: bool = True  # whether Range is known
    if_range: bool = True  # whether If-Range is known: without it, Range is answered whatever has changed
    early: int = 0  # bytes by which an answer to Range begins before what was asked for
    length: int | None = None  # a wrong Content-Length
    lengths: bool = True  # whether any is sent
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0  # between two pieces
    gate: threading.Event | None = None  # waited for before the second half is sent

    @property
    def tag(self) -> str | None:
        return f'"{hashlib.md5(self.body).hexdigest()}"' if self.etag == "" else self.etag


class Server:
    """files: what is served, by path. Counts per path: requests, those for a body (`gets`), and bytes of bodies `sent`."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.gets: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.asked: list[tuple[str, str | None]] = []  # path and Range of every request
        self.seen: list[str] = []  # the targets of the requests: whole addresses where this is asked as a proxy
        self.half = threading.Event()  # set where a file's gate is waited for
        outer = self

        class Handler(_Handler):
            server_of_test = outer

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.base = f"http://127.0.0.1:{self.http.server_address[1]}"

    def add(self, path: str, body: bytes, **how: object) -> str:
        """Serve a file; gives its URL."""
        self.files[path] = File(body, **how)  # type: ignore[arg-type]
        return self.base + path

    @contextmanager
    def running(self) -> Iterator[Server]:
        thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.http.shutdown()
            self.http.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server_of_test: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        test = self.server_of_test
        test.seen.append(self.path)
        if self.path.startswith("http://"):
            self._forward()
            return
        path = self.path.partition("?")[0]
        test.asked.append((path, self.headers.get("Range")))
        file = test.files.get(path)
        status = 404 if file is None else file.statuses.pop(0) if file.statuses else 200
        if file is None or status != 200:
            self.send_response(status)
            for name, value in (file.headers if file else {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        test.gets[path] += 1
        self._serve(path, file)

    def _serve(self, path: str, file: File) -> None:
        start, wanted = 0, self.headers.get("Range")
        valid = self.headers.get("If-Range") in (None, file.tag, file.modified) or not file.if_range
        if file.ranges and wanted and valid:
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) - file.early
        if start and start >= len(file.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(file.body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = file.body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(file.body) - 1}/{len(file.body)}")
        headers = {"ETag": file.tag, "Last-Modified": file.modified, "Content-Type": file.kind, **file.headers}
        headers["Accept-Ranges"] = "bytes" if file.ranges else None
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        if file.lengths:
            self.send_header("Content-Length", str(len(body) if file.length is None else file.length))
        self.end_headers()
        cut = file.cuts.pop(0) if file.cuts else None
        self._send(path, file, start, body if cut is None else body[:cut])
        if cut is not None or not file.lengths or file.length is not None:
            self.close_connection = True

    def _send(self, path: str, file: File, start: int, body: bytes) -> None:
        for at in range(0, len(body), PIECE):
            if file.gate and start + at >= len(file.body) // 2:
                self.server_of_test.half.set()
                file.gate.wait(LONG)
                if self.server_of_test.files.get(path) is not file:  # the test has gone on with another one
                    self.close_connection = True
                    return
            piece = body[at : at + PIECE]
            try:
                self.wfile.write(piece)
            except OSError:  # the other side has gone
                self.close_connection = True
                return
            self.server_of_test.sent[path] += len(piece)
            if file.seconds:
                time.sleep(file.seconds)

    def _forward(self) -> None:
        """Be a proxy."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.path) as answer:
            body = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


@pytest.fixture(name="server")
def web_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A running server, in an environment without proxies."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.delenv("POLYMAE_OFFLINE", raising=False)
    monkeypatch.setattr("polymae.hub.transport.TIMEOUTS", (LONG, LONG))  # a gate is closed for as long as a test takes
    with Server().running() as running:
        yield running


def unused_port() -> int:
    """A port of this machine where nobody listens."""
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as listening:
        return int(socket.getnameinfo(listening.server_address, socket.NI_NUMERICSERV)[1])
