"""The web server of the upstream: releases and a model registry, over plain HTTP.

It stands for github.com's release downloads and registry.ollama.ai. It keeps what their clients
lean on: HEAD, byte ranges, the registry's media types and error bodies, and on every blob the
``Location`` header without which Ollama refuses a 200 (seen: "http: no Location header in
response"). It logs one line a request: method, path, status, bytes sent, range.
"""

import json
import re
import socket
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import unquote, urlsplit

from lab.upstream.faults import CONTROL, Fault, Faults
from lab.upstream.models import MANIFEST_TYPE

REGISTRY = re.compile(r"/v2/(?P<name>[^/]+/[^/]+)/(?P<kind>manifests|blobs)/(?P<reference>[^/]+)")
ERRORS = {
    "manifests": ("MANIFEST_UNKNOWN", "manifest unknown"),
    "blobs": ("BLOB_UNKNOWN", "blob unknown to registry"),
}


class Span(NamedTuple):
    """The bytes asked for: first and last, both included."""

    first: int
    last: int

    @property
    def length(self) -> int:
        """Return how many bytes that is."""
        return self.last - self.first + 1


def parse_range(header: str, size: int) -> Span | None:
    """Read a ``Range`` header of one span; None means the whole file.

    Raises ``ValueError`` for a span outside the file.
    """
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
    if not found or found[0] == "bytes=-":
        return None
    first, last = found[1], found[2]
    if not first:
        span = Span(max(size - int(last), 0), size - 1)
    else:
        span = Span(int(first), min(int(last), size - 1) if last else size - 1)
    if span.first >= size or span.length < 1:
        raise ValueError(header)
    return span


class Handler(BaseHTTPRequestHandler):
    """One request. Answers differ from a plain file server below ``/v2/`` only."""

    protocol_version = "HTTP/1.1"
    server_version = "lab-upstream"
    server: "Server"
    sent = 0
    status = 0
    fault: Fault | None = None

    def do_GET(self) -> None:
        """Answer with headers and body."""
        self.answer(body=True)

    def do_HEAD(self) -> None:
        """Answer with the headers alone."""
        self.answer(body=False)

    def do_PUT(self) -> None:
        """Take orders from a test; nothing else is ever written."""
        self.control()

    do_DELETE = do_PUT  # noqa: N815 - a name of the base class

    def control(self) -> None:
        """Answer a test: what to do wrong, and what was served."""
        length = int(self.headers.get("Content-Length") or 0)
        status, answer = self.server.faults.control(
            self.command, self.path, self.rfile.read(length)
        )
        content = json.dumps(answer).encode()
        self.send(status, {"Content-Type": "application/json"}, content, body=True)

    def log_message(self, *_: object) -> None:
        """Leave the log to ``answer``; what is no HTTP at all (TLS, say) is not logged."""

    def answer(self, *, body: bool) -> None:
        """Answer a request and log it, whatever becomes of it."""
        self.sent = self.status = 0
        path = unquote(urlsplit(self.path).path)
        if path.endswith("/plugins/download"):  # Dify's marketplace has the name in the query
            path += "/" + unquote(urlsplit(self.path).query.partition("=")[2])
        if path.startswith(CONTROL):
            self.control()
            return
        self.fault = self.server.faults.take(
            path, self.client_address[0], is_range="Range" in self.headers
        )
        try:
            self.respond(path, body=body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            asked = self.headers.get("Range", "-")
            print(f"{self.command} {path} {self.status} {self.sent} {asked}", flush=True)  # noqa: T201

    def respond(self, path: str, *, body: bool) -> None:
        """Send the file of a path, or the error of its protocol."""
        registry = REGISTRY.fullmatch(path)
        if self.fault and self.fault.status:
            headers = {"Content-Type": "application/json"}
            error = json.dumps({"errors": [{"code": "LAB", "message": "on purpose"}]})
            self.send(HTTPStatus(self.fault.status), headers, error.encode(), body=body)
            return
        if path in {"/v2", "/v2/"}:
            self.send(HTTPStatus.OK, {"Content-Type": "application/json"}, b"{}", body=body)
            return
        file = self.server.find((self.fault and self.fault.serve) or path)
        if file is None:
            self.missing(registry, body=body)
            return
        headers = {"Content-Type": "application/octet-stream"}
        if registry and registry["kind"] == "manifests":
            headers["Content-Type"] = MANIFEST_TYPE
        elif registry:
            headers["Location"] = path
        size = file.stat().st_size
        if self.fault and self.fault.size is not None:
            size = min(size, self.fault.size)
        with file.open("rb") as content:
            self.send_file(content, size, headers, body=body)

    def missing(self, registry: re.Match[str] | None, *, body: bool) -> None:
        """Answer 404, as JSON inside the registry."""
        if registry is None:
            headers = {"Content-Type": "text/plain"}
            self.send(HTTPStatus.NOT_FOUND, headers, b"Not Found", body=body)
            return
        code, message = ERRORS[registry["kind"]]
        error = {"code": code, "message": message, "detail": registry["reference"]}
        self.send(
            HTTPStatus.NOT_FOUND,
            {"Content-Type": "application/json"},
            json.dumps({"errors": [error]}).encode(),
            body=body,
        )

    def send_file(
        self, content: BinaryIO, size: int, headers: dict[str, str], *, body: bool
    ) -> None:
        """Send a file or the span of it that was asked for."""
        try:
            span = parse_range(self.headers.get("Range", ""), size)
        except ValueError:
            headers = {"Content-Range": f"bytes */{size}"}
            self.send(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers, b"", body=body)
            return
        status = HTTPStatus.OK
        if span:
            status = HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = f"bytes {span.first}-{span.last}/{size}"
        else:
            span = Span(0, size - 1)
        self.head(status, {**headers, "Accept-Ranges": "bytes"}, span.length)
        if not body:
            return
        self.wfile.flush()
        if self.fault and self.fault.is_in_the_body:
            self.send_faulty(self.fault, content, span)
            return
        while self.sent < span.length:
            done = self.connection.sendfile(
                content, span.first + self.sent, min(span.length - self.sent, 1 << 22)
            )
            if not done:
                break
            self.count(done)

    def count(self, length: int) -> None:
        """Note bytes of a file that went out, for the log and for tests."""
        self.sent += length
        if "Range" in self.headers:
            self.server.faults.count(unquote(urlsplit(self.path).path), length)

    def send_faulty(self, fault: Fault, content: BinaryIO, span: Span) -> None:
        """Send a span as its fault wants it; small buffers, so that what is sent has arrived."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)

        def write(block: bytes) -> None:
            self.wfile.write(block)
            self.count(len(block))

        if not self.server.faults.send(fault, content, span.first, span.length, write):
            self.close_connection = True

    def send(
        self, status: HTTPStatus, headers: dict[str, str], content: bytes, *, body: bool
    ) -> None:
        """Send a short answer."""
        self.head(status, headers, len(content))
        if body:
            self.wfile.write(content)
            self.sent = len(content)

    def head(self, status: HTTPStatus, headers: dict[str, str], length: int) -> None:
        """Send status and headers."""
        self.status = status
        self.send_response_only(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()


class Server(ThreadingHTTPServer):
    """A threaded server of the files below a root."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, root: Path, host: str, port: int, handler: type[Handler] = Handler) -> None:
        """Listen at once; ``serve_forever`` answers."""
        super().__init__((host, port), handler)
        self.root = root.resolve(strict=True)
        self.faults = Faults()

    def find(self, path: str) -> Path | None:
        """Return the file of a path, or None; nothing outside the root is ever found."""
        if "\0" in path:
            return None
        file = (self.root / path.lstrip("/")).resolve()
        if path.endswith("/"):
            file /= "index.html"
        return file if file.is_relative_to(self.root) and file.is_file() else None

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent about clients that hang up; report anything else."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]
